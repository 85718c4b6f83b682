"""What a reading process sends arrives as it was, all of its tensors in one piece of shared memory."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storage_schemas.format.views import ViewSet
from trainer.data.batch import Look, TeacherTargets, ViewBatch
from trainer.data.packed_batch import ALIGNED, pack, unpack


def batch() -> ViewBatch:
    """A batch with every field, in several types, one tensor not contiguous, one empty."""
    numbers = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    start = torch.tensor([[1, 2], [3, -4]])
    spatial = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0)).half().permute(0, 2, 3, 1)
    targets = {
        "a": TeacherTargets(spatial=spatial, summary=torch.tensor([[0.5], [float("nan")]]), start=start),
        "b": TeacherTargets(spatial=torch.empty(0, 3, 3, 5), summary=None, start=start[:0]),
    }
    look = Look(pixels=numbers[:, :, 1:, 1:], start=start, draws=torch.rand(2, 5))
    low = ViewSet.parse("low-64")
    return ViewBatch(view_set=low, pixels=numbers, start=start, draws=torch.rand(2, 5), targets=targets, second=look)


def tensors_of(one: Any) -> list[Tensor]:
    """Return all tensors below a value, in order."""
    if isinstance(one, Tensor):
        return [one]
    if isinstance(one, dict):
        return [tensor for part in one.values() for tensor in tensors_of(part)]
    parts = one if isinstance(one, list) else [getattr(one, name) for name in getattr(one, "__slots__", ())]
    return [tensor for part in parts if not isinstance(part, ViewSet) for tensor in tensors_of(part)]


def test_what_is_packed_arrives_as_it_was() -> None:
    sent = [batch(), batch()]
    arrived = unpack(pack(sent))
    assert [one.view_set for one in arrived] == [ViewSet.parse("low-64")] * 2
    assert [list(one.targets) for one in arrived] == [["a", "b"]] * 2
    assert arrived[0].targets["b"].summary is None
    found, expected = tensors_of(arrived), tensors_of(sent)
    assert len(found) == 2 * 11
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_all_tensors_lie_in_one_piece_of_shared_memory_none_over_another() -> None:
    parcel = pack([batch()])
    assert parcel.numbers.is_shared()
    tensors = tensors_of(unpack(parcel))
    assert {one.untyped_storage().data_ptr() for one in tensors} == {parcel.numbers.untyped_storage().data_ptr()}
    places = sorted((one.data_ptr(), one.nbytes) for one in tensors if one.nbytes)
    assert all(start % ALIGNED == places[0][0] % ALIGNED for start, _ in places)
    assert all(start + size <= after for (start, size), (after, _) in pairwise(places))


def test_what_holds_no_tensor_is_packed_too() -> None:
    assert unpack(pack({"a": [1, None]})) == {"a": [1, None]}
