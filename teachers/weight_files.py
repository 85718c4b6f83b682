"""Weight files: a safetensors file, a PyTorch file, or a folder with one model, as tensors that are read by name.

PyTorch files are unpickled with `weights_only=True`, so no code in a file can run.
"""

import errno
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import safetensors
import torch
from torch import Tensor

from storage_schemas.format.errors import MALFORMED, ContractError, MissingError, Problem

_PICKLED = (".pth", ".pt", ".bin")
WEIGHT_FILES = (".safetensors", *_PICKLED)
"""Endings of the names of files with weights."""
_STANDARD = ("model.safetensors", "pytorch_model.bin")
_SAFETENSORS_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor in a file that is not read yet."""

    shape: tuple[int, ...]
    """Its shape."""
    dtype: str
    """Its dtype: PyTorch's name for it, or the file's name where PyTorch has none."""
    read: Callable[[], Tensor]
    """Reads it into its own memory, on the CPU."""


def open_weights(path: Path) -> Mapping[str, StoredTensor]:
    """Return the tensors of a file, or of a folder with one model.

    In a folder this reads `model.safetensors`, or its shards by `model.safetensors.index.json`; else
    `pytorch_model.bin` or its shards; else the only weight file.

    Raises:
        MissingError: there is no such file or folder, or no weights in the folder.
        ContractError: the file cannot be read, or the folder has several weight files.
    """
    if not path.exists():
        raise MissingError(f"weights {path}", [Problem(place=str(path), found="no such file or folder")])
    if path.is_dir():
        return _open_folder(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if path.suffix in _PICKLED:
        return _open_pickled(path)
    expected = f"expected .safetensors, {', '.join(_PICKLED)}, or a folder"
    raise _unreadable(path, f"has suffix {path.suffix!r}, {expected}")


def _open_folder(folder: Path) -> Mapping[str, StoredTensor]:
    for name in _STANDARD:
        file, index = folder / name, folder / f"{name}.index.json"
        if file.exists() and index.exists():
            raise _unreadable(folder, f"has both {file.name} and {index.name}", "give the path of the file")
        if file.exists():
            return open_weights(file)
        if index.exists():
            return _open_shards(index)
    others = sorted(file for file in folder.iterdir() if file.suffix in WEIGHT_FILES)
    if not others:
        raise MissingError(f"weights {folder}", [Problem(place=str(folder), found="no weight file in this folder")])
    if len(others) > 1:
        names = ", ".join(file.name for file in others)
        raise _unreadable(folder, f"has several weight files: {names}", "give the path of the file")
    return open_weights(others[0])


def _open_shards(index: Path) -> Mapping[str, StoredTensor]:
    listed: dict[str, str] = json.loads(index.read_text())["weight_map"]
    shards = {name: open_weights(index.parent / name) for name in sorted(set(listed.values()))}
    problems = [
        Problem(place=tensor, found=f"{index.name} lists it in {shard}, and it is not there")
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
        raise _unreadable(path, f"is not a complete safetensors file: {error}", "download it again") from error
    return {name: _in_safetensors(file, name) for name in sorted(file.keys())}


def _in_safetensors(file: Any, name: str) -> StoredTensor:
    header = file.get_slice(name)
    dtype = _SAFETENSORS_DTYPES.get(header.get_dtype())
    named = str(dtype).removeprefix("torch.") if dtype else header.get_dtype()
    return StoredTensor(shape=tuple(header.get_shape()), dtype=named, read=lambda: file.get_tensor(name))


def _open_pickled(path: Path) -> Mapping[str, StoredTensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, *MALFORMED) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which an empty file gives
            raise
        found = f"contains more than weights, or is incomplete: {_reason(error)}; no code in it was run"
        raise _unreadable(path, found, "download it again, or save only the model's state_dict") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]  # the form of sam3.pt
    if not (isinstance(loaded, dict) and all(isinstance(tensor, Tensor) for tensor in loaded.values())):
        raise _unreadable(path, "is not a mapping of names to tensors", "save only the model's state_dict")
    return {name: _in_memory(tensor) for name, tensor in loaded.items()}


def _reason(error: Exception) -> str:
    """Return why torch refused a file, without its advice to load what it refused: that would run code in the file."""
    if isinstance(error, (OSError, *MALFORMED)):
        return "it cannot be read as tensors"
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        return f"it names {named[1]}, which is no tensor" if named else "it cannot be read as tensors"
    return next(iter(str(error).splitlines()), type(error).__name__)


def _in_memory(tensor: Tensor) -> StoredTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    # clone: the tensor is memory-mapped, and the file may go away
    return StoredTensor(shape=tuple(tensor.shape), dtype=dtype, read=tensor.clone)


def _unreadable(path: Path, found: str, fix: str = "") -> ContractError:
    return ContractError(f"weights {path}", [Problem(place=path.name, found=found, fix=fix)])
