"""A packed batch arrives as it was sent, all of its tensors in one piece of shared memory."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storage_schemas.format.views import ViewSet
from trainer.data.batch import SecondView, TeacherTargets, ViewBatch
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
    second = SecondView(pixels=numbers[:, :, 1:, 1:], start=start, uniforms=torch.rand(2, 5))
    low = ViewSet.parse("low-64")
    return ViewBatch(
        view_set=low, pixels=numbers, start=start, uniforms=torch.rand(2, 5), targets=targets, second=second
    )


def tensors_of(value: Any) -> list[Tensor]:
    """Return all tensors below a value, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in tensors_of(part)]
    parts = value if isinstance(value, list) else [getattr(value, name) for name in getattr(value, "__slots__", ())]
    return [tensor for part in parts if not isinstance(part, ViewSet) for tensor in tensors_of(part)]


def test_what_is_packed_arrives_as_it_was() -> None:
    sent = [batch(), batch()]
    arrived = unpack(pack(sent))
    assert [batch.view_set for batch in arrived] == [ViewSet.parse("low-64")] * 2
    assert [list(batch.targets) for batch in arrived] == [["a", "b"]] * 2
    assert arrived[0].targets["b"].summary is None
    found, expected = tensors_of(arrived), tensors_of(sent)
    assert len(found) == 2 * 11
    for tensor, other in zip(found, expected, strict=True):
        assert tensor.dtype == other.dtype
        np.testing.assert_array_equal(tensor.numpy(), other.numpy())


def test_all_tensors_lie_in_one_piece_of_shared_memory_none_over_another() -> None:
    packed = pack([batch()])
    assert packed.numbers.is_shared()
    tensors = tensors_of(unpack(packed))
    assert {tensor.untyped_storage().data_ptr() for tensor in tensors} == {packed.numbers.untyped_storage().data_ptr()}
    places = sorted((tensor.data_ptr(), tensor.nbytes) for tensor in tensors if tensor.nbytes)
    assert all(start % ALIGNED == places[0][0] % ALIGNED for start, _ in places)
    assert all(start + size <= after for (start, size), (after, _) in pairwise(places))


def test_what_holds_no_tensor_is_packed_too() -> None:
    assert unpack(pack({"a": [1, None]})) == {"a": [1, None]}


def test_a_tensor_keeps_the_order_of_its_memory() -> None:
    channels_first = torch.arange(2 * 5 * 3 * 3, dtype=torch.int8).reshape(2, 5, 3, 3).movedim(1, -1)
    found = unpack(pack({"spatial": channels_first, "scalar": torch.tensor(3)}))
    assert torch.equal(found["spatial"], channels_first)
    assert found["spatial"].stride() == channels_first.stride()
    assert found["scalar"].item() == 3
