"""Reading batches from the cache. Arrays are opened only in the process that reads them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from storage_schemas.format import layout
from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.geometry import CanvasGeometry, cut_windows
from storage_schemas.format.seeds import Key, uniforms
from storage_schemas.format.views import Partition, Shifts, Split, ViewSet, draw_offset
from storage_schemas.open_shards import UnitRecords
from storage_schemas.sharded_array import ShardedArray
from storage_schemas.split_rows import SPLITS
from trainer.data.batch import SecondView, TeacherTargets, ViewBatch
from trainer.data.order_types import StepPart
from trainer.data.set_source import Features, SetSource
from trainer.data.source import Source


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchRequest:
    """Rows of one split of one view set, with the key of each row's student window."""

    view_set: ViewSet
    split: Split
    rows: Int64[np.ndarray, " batch"]
    window_keys: tuple[Key, ...]
    """One per row: what the row's window and uniforms are drawn from."""
    second_keys: tuple[Key, ...] | None = None
    """One per row for a second window; None for batches without one."""


def training_request(part: StepPart, seed: int, *, second: bool = False) -> BatchRequest:
    """Return the request for a step's rows, with a new window each time a view is used.

    Args:
        part: the rows of the step.
        seed: seed of the run.
        second: whether to cut a second window, for the student's moving average.
    """
    return BatchRequest(
        view_set=part.view_set,
        split="train",
        rows=part.rows,
        window_keys=_window_keys(part, seed, "student"),
        second_keys=_window_keys(part, seed, "average") if second else None,
    )


def _window_keys(part: StepPart, seed: int, viewer: str) -> tuple[Key, ...]:
    uses = zip(part.epochs.tolist(), part.rows.tolist(), strict=True)
    return tuple((seed, viewer, epoch, part.view_set.name, row) for epoch, row in uses)


def heldout_requests(source: Source, sizes: Mapping[Partition, int], seed: int) -> Iterator[BatchRequest]:
    """Yield requests for every held-out view once, in order. A view always has the same window.

    Args:
        source: the cache.
        sizes: views per batch, by partition.
        seed: seed of the run.
    """
    for view_set, set_source in source.sets.items():
        rows, size = set_source.rows["heldout"], sizes[view_set.partition]
        for part in (rows[first : first + size] for first in range(0, len(rows), size)):
            keys = heldout_keys(seed, view_set, part.tolist())
            yield BatchRequest(view_set=view_set, split="heldout", rows=part, window_keys=keys)


def heldout_keys(seed: int, view_set: ViewSet, rows: Sequence[int]) -> tuple[Key, ...]:
    """Return the keys of held-out windows, one per row."""
    return tuple((seed, "student", "heldout", view_set.name, row) for row in rows)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CachedBatches(Dataset[list[ViewBatch]]):
    """Turns requests into batches. It may be pickled for another process, which opens its own arrays."""

    source: Source
    arrays: dict[str, ShardedArray] = field(default_factory=dict, init=False, repr=False)
    """Arrays that this process has opened, by path."""

    def __reduce__(self) -> tuple[Callable[[Source], "CachedBatches"], tuple[Source]]:
        return _without_arrays, (self.source,)

    def __getitem__(self, requests: tuple[BatchRequest, ...]) -> list[ViewBatch]:
        """Read one batch for each request.

        Raises:
            MissingError: a row that was never committed.
            CorruptionError: stored bytes are not those that were committed.
            ContractError: a row is not of the split that is asked for.
        """
        return [self._read(request) for request in requests]

    def _read(self, request: BatchRequest) -> ViewBatch:
        set_source, view_set = self.source.sets[request.view_set], request.view_set
        _require_split(set_source, request)
        canvases = self._rows(layout.pixels_array(view_set), set_source.commits, request.rows)
        shifts = self.source.student_shifts
        pixels, start, numbers = _cut(canvases, set_source.geometry, shifts, request.window_keys)
        second = None
        if request.second_keys is not None:
            cut = _cut(canvases, set_source.geometry, shifts, request.second_keys)
            second = SecondView(pixels=cut[0], start=cut[1], uniforms=cut[2])
        targets = {
            teacher: self._targets(view_set, teacher, features, request.rows)
            for teacher, features in set_source.features.items()
        }
        return ViewBatch(
            view_set=view_set, pixels=pixels, start=start, uniforms=numbers, targets=targets, second=second
        )

    def _targets(
        self, view_set: ViewSet, teacher: str, features: Features, rows: Int64[np.ndarray, " batch"]
    ) -> TeacherTargets:
        # first of all, since it reads the commit records of all shards of the batch together
        start = torch.from_numpy(features.offsets[rows])
        spatial = self._rows(layout.spatial_array(view_set, teacher), features.commits, rows)
        summary = None
        if features.has_summary:
            summary = torch.from_numpy(self._rows(layout.summary_array(view_set, teacher), features.commits, rows))
        return TeacherTargets(spatial=torch.from_numpy(spatial), summary=summary, start=start)

    def _rows(self, path: str, commits: UnitRecords, rows: Int64[np.ndarray, " batch"]) -> np.ndarray:
        if path not in self.arrays:
            self.arrays[path] = self.source.cache.array(path, commits)
        return self.arrays[path].read(rows.tolist())


def _require_split(set_source: SetSource, request: BatchRequest) -> None:
    """Refuse rows of another split: no view of an image is trained on whose other views the student is scored on."""
    odd = request.rows[set_source.splits[request.rows] != SPLITS.index(request.split)]
    if odd.size:
        found = f"is not of the split {request.split}: the `views` table is not what the search for splits found"
        places = [Problem(place=f"{request.view_set.name}/{row}", found=found) for row in odd[:10].tolist()]
        raise ContractError("splits", places)


def window_starts(geometry: CanvasGeometry, shifts: Shifts, keys: tuple[Key, ...]) -> Int64[np.ndarray, "batch 2"]:
    """Draw the start of each student window (row, column; patches) from a distribution over the margin."""
    offsets = [draw_offset(geometry, shifts, key) for key in keys]
    return np.array([(offset.row, offset.col) for offset in offsets], dtype=np.int64).reshape(-1, 2)


def view_uniforms(keys: tuple[Key, ...]) -> Float32[np.ndarray, "batch 5"]:
    """Draw the five uniforms of each view from the key of its window."""
    return np.stack([uniforms((*key, "positions"), 5) for key in keys]).astype(np.float32)


def _cut(
    canvases: UInt8[np.ndarray, "batch side side 3"], geometry: CanvasGeometry, shifts: Shifts, keys: tuple[Key, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return windows, their starts and the views' uniforms, all drawn from the keys."""
    starts = window_starts(geometry, shifts, keys)
    windows = cut_windows(canvases, geometry, starts, channels_first=True)
    return torch.from_numpy(windows), torch.from_numpy(starts), torch.from_numpy(view_uniforms(keys))


def _without_arrays(source: Source) -> CachedBatches:
    return CachedBatches(source=source)
