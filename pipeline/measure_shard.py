"""Tasks of the stats stage: moments and angles over what is stored."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from pipeline.dispersion import AngleSum, DirectionSum, observe_angles, observe_direction
from pipeline.moments import Moments, Observer
from storage_schemas.cache import Cache
from storage_schemas.commits import read_commit
from storage_schemas.encodings import as_numbers
from storage_schemas.layout import features_unit, spatial_array, summary_array
from storage_schemas.sharded_array import ShardedArray
from storage_schemas.store import Store
from storage_schemas.views import ViewSet

VIEWS_PER_READ = 16


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureTask:
    """One committed shard of a teacher's features."""

    teacher: str
    view_set: ViewSet
    shard: int
    views: int
    """Views in it."""
    summarised: bool
    """Whether the teacher has summaries."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """First pass over one shard."""

    moments: Moments
    """Of stored spatial tokens (PHI-S units)."""
    directions: DirectionSum | None
    """Of raw summaries."""


@final
class FeatureMeasurer:
    """The worker of the stats stage."""

    def __init__(self, *, store: Store, threads: int) -> None:
        torch.set_num_threads(threads)
        self._cache = Cache(store=store)

    def measure(self, task: MeasureTask) -> Measured:
        """First pass: moments of the spatial tokens, sum of the summaries."""
        spatial, rows = self._open(task, spatial_array(task.view_set, task.teacher))
        observer = Observer()
        for first in range(0, len(rows), VIEWS_PER_READ):
            tokens = spatial.read(rows[first : first + VIEWS_PER_READ])
            observer.add(torch.from_numpy(as_numbers(tokens.reshape(-1, tokens.shape[-1])).astype(np.float32)))
        directions = observe_direction(self._summaries(task)) if task.summarised else None
        return Measured(moments=observer.moments(), directions=directions)

    def angles(self, task_and_direction: tuple[MeasureTask, np.ndarray]) -> AngleSum:
        """Second pass: squared angles between summaries and their mean direction (μ_y, unit length)."""
        task, direction = task_and_direction
        return observe_angles(self._summaries(task), direction)

    def _summaries(self, task: MeasureTask) -> np.ndarray:
        summary, rows = self._open(task, summary_array(task.view_set, task.teacher))
        return summary.read(rows)

    def _open(self, task: MeasureTask, array: str) -> tuple[ShardedArray, range]:
        commits = read_commit(self._cache.store, features_unit(task.view_set, task.teacher), task.shard)
        opened = self._cache.array(array, {task.shard: commits})
        record = opened.records[task.shard]
        return opened, range(record.first_row, record.first_row + record.rows)
