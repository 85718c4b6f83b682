"""The worker of the stats stage: moments of stored features, and angles of stored summaries."""

from collections.abc import Iterator
from functools import reduce
from typing import final

import numpy as np
import torch

from pipeline.phi_s.observe import Observer
from pipeline.stats.dispersion import (
    DirectionSum,
    SplitAngles,
    mean_direction,
    merge_directions,
    merge_splits,
    observe_angles,
    observe_angles_to,
    observe_direction,
)
from pipeline.stats.quantization import RoundingSums, merge_rounding, observe_rounding
from pipeline.stats.set_sums import SetSums
from pipeline.stats.task import MeasureTask
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, read_commit
from storage_schemas.format.encodings import Coding, as_numbers
from storage_schemas.format.layout import features_unit, spatial_array, summary_array
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.objects.store import Store
from storage_schemas.sharded_array import ShardedArray

TOKENS_AT_ONCE = 8192
"""Tokens read at a time, but at least one view: memory depends neither on the number of views nor on their size."""


@final
class FeatureMeasurer:
    """The worker of the stats stage."""

    def __init__(self, *, store: Store, threads: int) -> None:
        torch.set_num_threads(threads)
        self._cache = Cache(store=store)
        self._codings: dict[str, Coding] = {}

    def measure(self, task: MeasureTask) -> SetSums:
        """First pass: moments of the spatial tokens, their rounding errors, the sum of the summaries."""
        observer, rounding = Observer(), RoundingSums(count=0, float16=0.0, int8=0.0, saturated=0)
        for tokens, coding in self._tokens(task):
            observer.add(torch.from_numpy(as_numbers(tokens, coding)))
            rounding = merge_rounding(rounding, observe_rounding(tokens, coding))
        directions = None
        if task.summarised:
            training = (summaries[is_training] for summaries, is_training in self._summaries(task))
            directions = reduce(merge_directions, map(observe_direction, training))
        return SetSums(moments=observer.moments(), rounding=rounding, directions=directions)

    def angles(self, task_and_directions: tuple[MeasureTask, DirectionSum]) -> SplitAngles:
        """Second pass: squared angles between each summary and the mean direction of all the (other) training views."""
        task, directions = task_and_directions
        direction = mean_direction(directions)
        by_shard = (
            SplitAngles(
                train=observe_angles(summaries[is_training], directions),
                heldout=observe_angles_to(summaries[~is_training], direction),
            )
            for summaries, is_training in self._summaries(task)
        )
        return reduce(merge_splits, by_shard)

    def _tokens(self, task: MeasureTask) -> Iterator[tuple[np.ndarray, Coding]]:
        for shard in task.shards:
            spatial, rows = self._open(task, shard, spatial_array(task.view_set, task.teacher))
            coding = self._coding(spatial.spec)
            step = max(1, TOKENS_AT_ONCE // int(np.prod(spatial.spec.entry_shape[:-1])))
            for first in range(0, len(rows), step):
                tokens = spatial.read(rows[first : first + step])
                yield tokens.reshape(-1, tokens.shape[-1]), coding

    def _coding(self, spec: ArraySpec) -> Coding:
        """Return what the entries of an array stand for. The latents of a teacher are read once."""
        if spec.path not in self._codings:
            self._codings[spec.path] = self._cache.coding(spec)
        return self._codings[spec.path]

    def _summaries(self, task: MeasureTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield each shard's summaries, and which of them are of training views: all, if they are not kept apart."""
        for shard in task.shards:
            summary, rows = self._open(task, shard, summary_array(task.view_set, task.teacher))
            summaries = summary.read(rows)
            is_training = np.ones(len(summaries), dtype=bool)
            if task.kept_apart:
                splits = self._cache.shard_views(task.view_set, shard)["split"]
                is_training = np.array(splits.to_pylist()) == "train"
            yield summaries, is_training

    def _open(self, task: MeasureTask, shard: int, array: str) -> tuple[ShardedArray, range]:
        commits = read_commit(self._cache.store, features_unit(task.view_set, task.teacher), shard)
        opened = self._cache.array(array, {shard: commits})
        return opened, slots_filled(opened.records[shard])


def slots_filled(record: ShardRecord) -> range:
    """Return the row slots of a shard that hold a view."""
    return range(record.first_row, record.first_row + record.rows)
