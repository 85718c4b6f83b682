"""Sending batches from a reader process to the training process in one piece.

PyTorch shares every tensor through a file of its own and passes each file over a socket of its own. A step has two
dozen tensors; for these, the training process would need longer to receive them than to read them. Here all tensors of
an object share one block of memory.
"""

import io
import pickle
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import UInt8
from torch import Tensor

Place = tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]
"""Where a tensor lies (byte), its type, its shape, and its axes in the order of its memory."""
ALIGNED = 64
"""Every tensor starts at a multiple of this number of bytes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedBatch:
    """An object whose tensors all lie in one block of shared memory."""

    frame: bytes
    """The pickled object without its tensors."""
    numbers: UInt8[Tensor, " bytes"]
    """The bytes of all tensors, one after the other."""

    def pin_memory(self) -> "PackedBatch":
        """Return the same in page-locked memory. PyTorch's data loader calls this method by its name."""
        return PackedBatch(frame=self.frame, numbers=self.numbers.pin_memory())


def pack(unpacked: Any) -> PackedBatch:
    """Pack an object. The values of its tensors are copied to shared memory."""
    frame = io.BytesIO()
    packer = _Packer(frame)
    packer.dump(unpacked)
    shared = torch.UntypedStorage._new_shared(packer.length, device="cpu")  # as PyTorch's own collation does
    numbers = torch.empty(0, dtype=torch.uint8).set_(shared)
    for start, tensor in packer.placed:
        _placed(numbers, start, tensor.dtype, tensor.shape, _axes(tensor)).copy_(tensor)
    return PackedBatch(frame=frame.getvalue(), numbers=numbers)


def unpack(packed: PackedBatch) -> Any:
    """Return the object that was packed. Its tensors share the memory of the packed batch."""
    return _Unpacker(packed).load()


@final
class _Packer(pickle.Pickler):
    def __init__(self, frame: io.BytesIO) -> None:
        super().__init__(frame, protocol=pickle.HIGHEST_PROTOCOL)
        self.placed: list[tuple[int, Tensor]] = []
        self.length = 0

    def persistent_id(self, part: Any) -> Place | None:
        if not isinstance(part, Tensor):
            return None
        start = self.length
        self.placed.append((start, part))
        self.length += -(-part.nbytes // ALIGNED) * ALIGNED
        return start, part.dtype, tuple(part.shape), _axes(part)


@final
class _Unpacker(pickle.Unpickler):
    def __init__(self, packed: PackedBatch) -> None:
        super().__init__(io.BytesIO(packed.frame))
        self.numbers = packed.numbers

    def persistent_load(self, placed: Place) -> Tensor:
        return _placed(self.numbers, *placed)


def _axes(tensor: Tensor) -> tuple[int, ...]:
    """Return the axes in the order in which the tensor's memory has them, so that packing need not transpose it."""
    strides = tensor.stride()
    return tuple(sorted(range(tensor.dim()), key=lambda axis: -strides[axis]))


def _placed(numbers: Tensor, start: int, dtype: torch.dtype, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    count = torch.Size(shape).numel()
    in_memory = numbers[start : start + count * dtype.itemsize].view(dtype).view([shape[axis] for axis in axes])
    return in_memory.permute([axes.index(axis) for axis in range(len(axes))])
