"""Reading batches from the cache. Arrays are opened in the process that reads them, and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch.utils.data import Dataset

from storage_schemas.format import layout
from storage_schemas.format.encodings import as_numbers
from storage_schemas.format.geometry import CanvasGeometry, cut_windows
from storage_schemas.format.seeds import Key, uniforms
from storage_schemas.format.views import UNIFORM, Partition, ViewSet, draw_offset
from storage_schemas.sharded_array import ShardedArray
from trainer.data.batch import Look, TeacherTargets, ViewBatch
from trainer.data.order import StepPart
from trainer.data.set_source import Commits, Features
from trainer.data.source import Source


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchRequest:
    """Rows of one view set, with the key of each row's student window."""

    view_set: ViewSet
    rows: Int64[np.ndarray, " batch"]
    window_keys: tuple[Key, ...]
    """One per row."""
    second_keys: tuple[Key, ...] | None = None
    """One per row for a second window; None where nobody looks through one."""


def training_request(part: StepPart, seed: int, *, second: bool = False) -> BatchRequest:
    """Ask for a step's rows, with a window that is fresh at every meeting of the student and a view.

    Args:
        part: what the step takes.
        seed: of the run.
        second: whether the student's moving average looks too, through a window of its own.
    """

    def keys(who: str) -> tuple[Key, ...]:
        deals = zip(part.deals.tolist(), part.rows.tolist(), strict=True)
        return tuple((seed, who, deal, part.view_set.name, row) for deal, row in deals)

    return BatchRequest(
        view_set=part.view_set,
        rows=part.rows,
        window_keys=keys("student"),
        second_keys=keys("average") if second else None,
    )


def heldout_requests(source: Source, sizes: Mapping[Partition, int], seed: int) -> list[BatchRequest]:
    """Ask for every held-out view once, in order, each in a window that stays the same.

    Args:
        source: the cache.
        sizes: views per batch, by partition.
        seed: of the run.
    """
    requests = []
    for view_set, one in source.sets.items():
        rows, size = one.rows["heldout"], sizes[view_set.partition]
        for part in (rows[first : first + size] for first in range(0, len(rows), size)):
            keys = tuple((seed, "student", "heldout", view_set.name, row) for row in part.tolist())
            requests.append(BatchRequest(view_set=view_set, rows=part, window_keys=keys))
    return requests


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CachedBatches(Dataset[list[ViewBatch]]):
    """Turns requests into batches. It may be sent to other processes: what it opened stays behind."""

    source: Source
    arrays: dict[str, ShardedArray] = field(default_factory=dict, init=False, repr=False)
    """Arrays that this process has opened, by path."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _without_arrays, (self.source,)

    def __getitem__(self, requests: tuple[BatchRequest, ...]) -> list[ViewBatch]:
        """Read one batch for each request.

        Raises:
            MissingError: a row that was never committed.
            CorruptionError: stored bytes are not those that were committed.
        """
        return [self._read(request) for request in requests]

    def _read(self, request: BatchRequest) -> ViewBatch:
        one, view_set = self.source.sets[request.view_set], request.view_set
        canvases = self._rows(layout.pixels_array(view_set), one.commits, request.rows)
        look, second = _look(canvases, one.geometry, request.window_keys), None
        if request.second_keys is not None:
            second = _look(canvases, one.geometry, request.second_keys)
        return ViewBatch(
            view_set=view_set,
            pixels=look.pixels,
            start=look.start,
            draws=look.draws,
            targets={name: self._targets(view_set, name, seen, request) for name, seen in one.features.items()},
            second=second,
        )

    def _targets(self, view_set: ViewSet, teacher: str, seen: Features, request: BatchRequest) -> TeacherTargets:
        spatial = as_numbers(self._rows(layout.spatial_array(view_set, teacher), seen.commits, request.rows))
        summary = None
        if seen.has_summary:
            summary = torch.from_numpy(self._rows(layout.summary_array(view_set, teacher), seen.commits, request.rows))
        start = torch.from_numpy(seen.offsets[request.rows])
        return TeacherTargets(spatial=torch.from_numpy(spatial), summary=summary, start=start)

    def _rows(self, path: str, commits: Commits, rows: Int64[np.ndarray, " batch"]) -> np.ndarray:
        if path not in self.arrays:
            self.arrays[path] = self.source.cache.array(path, commits)
        return self.arrays[path].read(rows.tolist())


def window_starts(geometry: CanvasGeometry, keys: tuple[Key, ...]) -> Int64[np.ndarray, "batch 2"]:
    """Draw where each student window starts (row, column; patches), uniformly over the margin."""
    offsets = [draw_offset(geometry, UNIFORM, key) for key in keys]
    return np.array([(offset.row, offset.col) for offset in offsets], dtype=np.int64).reshape(-1, 2)


def view_draws(keys: tuple[Key, ...]) -> Float32[np.ndarray, "batch 5"]:
    """Draw each view's own numbers, beside the window of the same key."""
    return np.stack([uniforms((*key, "positions"), 5) for key in keys]).astype(np.float32)


def _look(canvases: UInt8[np.ndarray, "batch side side 3"], geometry: CanvasGeometry, keys: tuple[Key, ...]) -> Look:
    starts = window_starts(geometry, keys)
    return Look(
        pixels=torch.from_numpy(cut_windows(canvases, geometry, starts, channels_first=True)),
        start=torch.from_numpy(starts),
        draws=torch.from_numpy(view_draws(keys)),
    )


def _without_arrays(source: Source) -> CachedBatches:
    return CachedBatches(source=source)
