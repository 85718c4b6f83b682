"""Sending an answer from a reading process to the student's in one piece.

PyTorch shares every tensor by a file of its own, each handed over by a conversation of its own: for the two dozen small
and large tensors of a step that takes the student's process longer than reading them would. Here all of them lie in
one.
"""

import io
import pickle
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import UInt8
from torch import Tensor

ALIGNED = 64
"""Every tensor starts at a multiple of so many bytes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parcel:
    """An object, and the numbers of all its tensors."""

    frame: bytes
    """The object without its tensors."""
    numbers: UInt8[Tensor, " bytes"]
    """Theirs, one after the other."""

    def pin_memory(self) -> "Parcel":
        """Return the same in memory that a GPU copies from directly; the data loader asks for it by this name."""
        return Parcel(frame=self.frame, numbers=self.numbers.pin_memory())


def pack(whole: Any) -> Parcel:
    """Put an object into a parcel; the numbers of its tensors are copied to memory that processes share."""
    frame = io.BytesIO()
    packer = _Packer(frame)
    packer.dump(whole)
    shared = torch.UntypedStorage._new_shared(packer.length, device="cpu")  # as PyTorch's own collation does
    numbers = torch.empty(0, dtype=torch.uint8).set_(shared)
    for start, tensor in packer.placed:
        _placed(numbers, start, tensor.dtype, tensor.shape).copy_(tensor)
    return Parcel(frame=frame.getvalue(), numbers=numbers)


def unpack(parcel: Parcel) -> Any:
    """Return what was packed. Its tensors lie in the parcel."""
    return _Unpacker(parcel).load()


@final
class _Packer(pickle.Pickler):
    def __init__(self, frame: io.BytesIO) -> None:
        super().__init__(frame, protocol=pickle.HIGHEST_PROTOCOL)
        self.placed: list[tuple[int, Tensor]] = []
        self.length = 0

    def persistent_id(self, one: Any) -> tuple[int, torch.dtype, tuple[int, ...]] | None:
        if not isinstance(one, Tensor):
            return None
        start = self.length
        self.placed.append((start, one))
        self.length += -(-one.nbytes // ALIGNED) * ALIGNED
        return start, one.dtype, tuple(one.shape)


@final
class _Unpacker(pickle.Unpickler):
    def __init__(self, parcel: Parcel) -> None:
        super().__init__(io.BytesIO(parcel.frame))
        self.numbers = parcel.numbers

    def persistent_load(self, placed: tuple[int, torch.dtype, tuple[int, ...]]) -> Tensor:
        return _placed(self.numbers, *placed)


def _placed(numbers: Tensor, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    count = torch.Size(shape).numel()
    return numbers[start : start + count * dtype.itemsize].view(dtype).view(shape)
