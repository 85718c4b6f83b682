"""Weights on disk: a safetensors file, a PyTorch file, or a folder of either, as named tensors read one by one.

PyTorch files are unpickled with `weights_only=True`; nothing in a file can run.
"""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import safetensors
import torch
from torch import Tensor

from storage_schemas.format.errors import ContractError, MissingError, Problem

_PICKLED = (".pth", ".pt", ".bin")
_STANDARD = ("model.safetensors", "pytorch_model.bin")
_SAFETENSORS_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor in a file, not read yet."""

    shape: tuple[int, ...]
    """Its shape."""
    dtype: str
    """Its dtype, as PyTorch calls it where it has a name for it, or else as the file does."""
    read: Callable[[], Tensor]
    """Reads it into memory of its own, on the CPU."""


def open_weights(path: Path) -> Mapping[str, StoredTensor]:
    """Return the tensors of a file, or of a folder that holds one model.

    In a folder: `model.safetensors` (or its shards, through `model.safetensors.index.json`); else `pytorch_model.bin`
    likewise; else the only weights file there.

    Raises:
        MissingError: nothing is there.
        ContractError: it cannot be read, or which file is meant is not plain.
    """
    if not path.exists():
        raise MissingError(f"weights {path}", [Problem(place=str(path), found="no such file or folder")])
    if path.is_dir():
        return _open_folder(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if path.suffix in _PICKLED:
        return _open_pickled(path)
    found = f"{path.suffix or 'no suffix'}, expected .safetensors, {', '.join(_PICKLED)}, or a folder"
    raise _unreadable(path, found)


def _open_folder(folder: Path) -> Mapping[str, StoredTensor]:
    for name in _STANDARD:
        file, index = folder / name, folder / f"{name}.index.json"
        if file.exists() and index.exists():
            raise _unreadable(folder, f"both {file.name} and {index.name}", "name the file that is meant")
        if file.exists():
            return open_weights(file)
        if index.exists():
            return _open_shards(index)
    others = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", *_PICKLED))
    if not others:
        raise MissingError(f"weights {folder}", [Problem(place=str(folder), found="no weights file in this folder")])
    if len(others) > 1:
        names = ", ".join(file.name for file in others)
        raise _unreadable(folder, f"several weights files: {names}", "name the file that is meant")
    return open_weights(others[0])


def _open_shards(index: Path) -> Mapping[str, StoredTensor]:
    listed: dict[str, str] = json.loads(index.read_text())["weight_map"]
    shards = {name: open_weights(index.parent / name) for name in sorted(set(listed.values()))}
    problems = [
        Problem(place=tensor, found=f"{index.name} says it is in {shard}, and it is not")
        for tensor, shard in listed.items()
        if tensor not in shards[shard]
    ]
    problems += [
        Problem(place=tensor, found=f"is in {shard}, and {index.name} does not list it there")
        for shard, tensors in shards.items()
        for tensor in tensors
        if listed.get(tensor) != shard
    ]
    if problems:
        raise ContractError(f"weights {index}", problems)
    return {tensor: shards[shard][tensor] for tensor, shard in listed.items()}


def _open_safetensors(path: Path) -> Mapping[str, StoredTensor]:
    try:
        file = safetensors.safe_open(path, framework="pt", device="cpu")
    except safetensors.SafetensorError as error:
        raise _unreadable(path, f"not a whole safetensors file: {error}", "download it again") from error
    return {name: _in_safetensors(file, name) for name in sorted(file.keys())}


def _in_safetensors(file: Any, name: str) -> StoredTensor:
    header = file.get_slice(name)
    dtype = _SAFETENSORS_DTYPES.get(header.get_dtype())
    named = str(dtype).removeprefix("torch.") if dtype else header.get_dtype()
    return StoredTensor(shape=tuple(header.get_shape()), dtype=named, read=lambda: file.get_tensor(name))


def _open_pickled(path: Path) -> Mapping[str, StoredTensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _unreadable(path, f"not weights alone, or not whole: {first}", "download it again") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]  # as sam3.pt has it
    if not (isinstance(loaded, dict) and all(isinstance(tensor, Tensor) for tensor in loaded.values())):
        raise _unreadable(path, "not a mapping of names to tensors", "save the model's state_dict alone")
    return {name: _in_memory(tensor) for name, tensor in loaded.items()}


def _in_memory(tensor: Tensor) -> StoredTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    # a clone: the tensor is a window on the file, which may go away
    return StoredTensor(shape=tuple(tensor.shape), dtype=dtype, read=tensor.clone)


def _unreadable(path: Path, found: str, fix: str = "") -> ContractError:
    return ContractError(f"weights {path}", [Problem(place=path.name, found=found, fix=fix)])
