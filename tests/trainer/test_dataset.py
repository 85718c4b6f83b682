"""Batches are what the cache holds, and the student's window is where it is said to be."""

import pickle
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from storage_schemas.cache import Cache
from storage_schemas.format import layout
from storage_schemas.format.views import ViewSet
from trainer.data.batch import ViewBatch, unit_pixels
from trainer.data.dataset import BatchRequest, CachedBatches, heldout_requests, training_request
from trainer.data.order import StepPart
from trainer.data.source import open_source

LOW_48 = ViewSet(partition="low", resolution=48)
SIZES = {"low": 2, "high": 2}


@cache
def dataset(full_cache: Cache) -> CachedBatches:
    return CachedBatches(source=open_source(full_cache))


def read(full_cache: Cache, rows: list[int], epoch: int = 0) -> ViewBatch:
    part = StepPart(view_set=LOW_48, rows=np.array(rows), epochs=np.full(len(rows), epoch))
    [batch] = dataset(full_cache)[(training_request(part, seed=0),)]
    return batch


def test_pixels_are_the_canvas_from_the_start_that_the_batch_names(full_cache: Cache) -> None:
    batch, source = read(full_cache, [10, 2, 7, 2]), open_source(full_cache)
    canvases = full_cache.array(layout.pixels_array(LOW_48), source.sets[LOW_48].commits).read([10, 2, 7, 2])
    for window, canvas, (row, col) in zip(batch.pixels, canvases, (16 * batch.start).tolist(), strict=True):
        assert_array_equal(window.permute(1, 2, 0).numpy(), canvas[row : row + 48, col : col + 48])


def test_targets_are_the_stored_features_and_the_teachers_starts(full_cache: Cache) -> None:
    batch, source = read(full_cache, [10, 2, 7]), open_source(full_cache)
    assert set(batch.targets) == {"any", "canvas", "fixed"}
    for name, target in batch.targets.items():
        seen = source.sets[LOW_48].features[name]
        stored = full_cache.array(layout.spatial_array(LOW_48, name), seen.commits).read([10, 2, 7])
        assert target.spatial.dtype == torch.float16
        assert_array_equal(target.spatial.numpy(), stored)
        assert_array_equal(target.start.numpy(), seen.offsets[[10, 2, 7]])
    assert batch.targets["canvas"].summary is None
    summary = full_cache.array(layout.summary_array(LOW_48, "any"), source.sets[LOW_48].features["any"].commits)
    assert batch.targets["any"].summary is not None
    assert_array_equal(batch.targets["any"].summary.numpy(), summary.read([10, 2, 7]))


def test_a_view_has_the_same_window_in_one_epoch_and_others_in_other_epochs(full_cache: Cache) -> None:
    assert torch.equal(read(full_cache, [3, 4]).start, read(full_cache, [3, 4]).start)
    assert torch.equal(read(full_cache, [3, 4]).start[1], read(full_cache, [4]).start[0])
    met = {tuple(read(full_cache, [3], epoch).start[0].tolist()) for epoch in range(40)}
    assert met == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_every_heldout_view_is_asked_for_once_in_batches_of_one_set(full_cache: Cache) -> None:
    source = open_source(full_cache)
    requests = list(heldout_requests(source, SIZES, seed=0))
    asked = [(request.view_set, row) for request in requests for row in request.rows.tolist()]
    held = [
        (view_set, row) for view_set, set_source in source.sets.items() for row in set_source.rows["heldout"].tolist()
    ]
    assert asked == held
    assert max(len(request.rows) for request in requests) == 2
    again = heldout_requests(source, {"low": 1, "high": 1}, seed=0)
    assert [key for request in again for key in request.window_keys] == [
        key for request in requests for key in request.window_keys
    ]


def test_no_training_request_shares_a_window_key_with_a_heldout_one(full_cache: Cache) -> None:
    part = StepPart(view_set=LOW_48, rows=np.array([0]), epochs=np.array([0]))
    heldout = {
        key for request in heldout_requests(open_source(full_cache), SIZES, seed=0) for key in request.window_keys
    }
    assert not heldout & set(training_request(part, seed=0).window_keys)


def test_a_dataset_travels_without_what_it_opened(full_cache: Cache) -> None:
    opened = CachedBatches(source=open_source(full_cache))
    request = BatchRequest(view_set=LOW_48, split="train", rows=np.array([1]), window_keys=((0, "a"),))
    [before] = opened[(request,)]
    assert opened.arrays
    copy = pickle.loads(pickle.dumps(opened))
    assert not copy.arrays
    [after] = copy[(request,)]
    assert torch.equal(after.pixels, before.pixels)


def test_pixels_reach_the_student_between_zero_and_one() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(unit_pixels(levels)[0, 0].flatten(), torch.arange(256) / 255)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_batch_moves_to_a_device_whole(full_cache: Cache, device: str) -> None:
    moved = read(full_cache, [1, 2]).to(torch.device(device))
    tensors = [moved.pixels, moved.start]
    for target in moved.targets.values():
        tensors += [target.spatial, target.start, *([] if target.summary is None else [target.summary])]
    assert {tensor.device.type for tensor in tensors} == {device}
    assert len(tensors) == 2 + 3 * 2 + 2
