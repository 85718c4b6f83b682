"""Tasks of the extract stage: pixels of a shard in, moments or stored features of it out."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.config import TeacherChoice
from pipeline.cut_shard import committed_views
from pipeline.features import ViewFeatures, view_features
from pipeline.moments import Moments, merge_all, observe
from pipeline.placements import Placement, mosaic_layout, place_views, placements_table
from pipeline.shard_writer import ShardKey, ShardWriter, array_record, commit, open_shard, write_table_part
from storage_schemas.cache import Cache
from storage_schemas.commits import read_commit
from storage_schemas.errors import MissingError, Problem, SettingError
from storage_schemas.layout import (
    detail_array,
    detail_unit,
    features_unit,
    pixels_array,
    spatial_array,
    summary_array,
    table_part,
    views_unit,
)
from storage_schemas.manifest import ViewSetManifest
from storage_schemas.shard_format import ArraySpec
from storage_schemas.sharded_array import ShardedArray
from storage_schemas.store import Store
from storage_schemas.teacher import TeacherSpec
from storage_schemas.views import Shifts, ViewSet, teacher_tokens
from teachers.base import AbstractTeacher
from teachers.build import build_teacher


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTask:
    """One shard of a view set, for one teacher."""

    view_set: ViewSet
    manifest: ViewSetManifest
    shard: int
    identity: str
    """Digest of the teacher's features; empty while calibrating."""
    first: int = 0
    """Calibration only: how many of the shard's first views to observe."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureReport:
    """What became of a task."""

    views: int
    forwards: int
    """Inputs that the teacher saw (images, or mosaics)."""
    bytes: int
    """Bytes of the arrays written."""


@final
class FeatureExtractor:
    """The worker of the extract stage: it holds one teacher, and its PHI-S once there is one."""

    def __init__(
        self, *, store: Store, choice: TeacherChoice, seed: int, shifts: Shifts, device: str, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        self._cache = Cache(store=store)
        self._choice = choice
        self._seed = seed
        self._shifts = shifts
        self._device = device

    @cached_property
    def _teacher(self) -> AbstractTeacher:
        return build_teacher(
            self._choice.source,
            name=self._choice.name,
            weights=self._choice.weights,
            precision=self._choice.precision,
            device=_found(self._device),
        )

    @cached_property
    def _phi_s(self) -> tuple[Tensor, Tensor]:
        phi_s = self._cache.phi_s(self._choice.name)
        if phi_s is None:
            place = f"teachers/{self._choice.name}/phi_s"
            raise MissingError("PHI-S", [Problem(place=place, found="is not fitted yet")])
        mean, weight = phi_s.mean.astype(np.float32), phi_s.forward_weight
        return torch.from_numpy(mean).to(self._teacher.device), torch.from_numpy(weight).to(self._teacher.device)

    def identify(self, _: None) -> str:
        """Return the SHA-256 of the teacher's weights."""
        return self._teacher.weights_sha256

    def observe(self, task: FeatureTask) -> Moments:
        """Return the moments of raw spatial features over a shard's first views, where the training views are.

        Raises:
            ContractError: the teacher gave NaN or infinity.
        """
        views = committed_views(self._cache, task.view_set, task.shard)
        placements = self._placements(task, views)[: self._whole_mosaics(task.first, task)]
        left, parts = task.first, []
        for features in self._features(task, placements):
            spatial = features.spatial[:left]
            left -= len(spatial)
            parts.append(observe(spatial.flatten(0, 2)))
        return merge_all(parts)

    def extract(self, task: FeatureTask) -> FeatureReport:
        """Write a shard's features and placements, and commit them.

        Raises:
            ContractError: the teacher gave NaN or infinity. Nothing of the shard is left.
        """
        views = committed_views(self._cache, task.view_set, task.shard)
        placements = self._placements(task, views)
        spec, store = self._teacher.spec, self._cache.store
        with ExitStack() as stack:
            spatial = stack.enter_context(open_shard(store, spatial_spec(task, spec, self._choice), task.shard))
            summary = None
            if spec.summary_dim is not None:
                summary = stack.enter_context(open_shard(store, summary_spec(task, spec), task.shard))
            for features in self._features(task, placements):
                self._append(features, spatial, summary)
        self._commit(task, placements, [writer for writer in (spatial, summary) if writer is not None])
        return FeatureReport(
            views=len(placements),
            forwards=self._whole_mosaics(len(placements), task) // self._per_input(task),
            bytes=spatial.sink.size + (summary.sink.size if summary else 0),
        )

    def _append(self, features: ViewFeatures, spatial: ShardWriter, summary: ShardWriter | None) -> None:
        mean, weight = self._phi_s
        stored = (features.spatial - mean) @ weight.T
        dtype = torch.float16 if self._choice.encoding == "float16" else torch.float32
        for entry in stored.to(dtype).cpu().numpy():
            spatial.append(entry)
        if summary is not None and features.summary is not None:
            for entry in features.summary.cpu().numpy():
                summary.append(entry)

    def _commit(self, task: FeatureTask, placements: list[Placement], writers: list[ShardWriter]) -> None:
        unit = features_unit(task.view_set, self._choice.name)
        key = ShardKey(unit=unit, shard=task.shard, identity=task.identity)
        name = table_part("placements", f"{self._choice.name}/{task.view_set.name}", task.shard)
        first_row = task.manifest.grid.slots(task.shard).start
        part = write_table_part(self._cache.store, name, placements_table(placements), first_row, key)
        commit(self._cache.store, key, [*(array_record(writer, key) for writer in writers), part])

    def _placements(self, task: FeatureTask, views: pa.Table) -> list[Placement]:
        geometry = task.manifest.geometry
        return place_views(self._teacher.spec, self._seed, self._shifts, task.view_set, geometry, views)

    def _features(self, task: FeatureTask, placements: list[Placement]) -> Iterator[ViewFeatures]:
        geometry = task.manifest.geometry
        return view_features(self._teacher, self._source(task), geometry, placements, self._choice.batch)

    def _source(self, task: FeatureTask) -> ShardedArray:
        name = self._choice.name
        fixed = self._teacher.spec.size_rule == "fixed"
        unit = detail_unit(task.view_set, name) if fixed else views_unit(task.view_set)
        array = detail_array(task.view_set, name) if fixed else pixels_array(task.view_set)
        return self._cache.array(array, {task.shard: read_commit(self._cache.store, unit, task.shard)})

    def _per_input(self, task: FeatureTask) -> int:
        spec, geometry = self._teacher.spec, task.manifest.geometry
        return mosaic_layout(spec, geometry).capacity if spec.size_rule == "canvas" else 1

    def _whole_mosaics(self, views: int, task: FeatureTask) -> int:
        per_input = self._per_input(task)
        return -(-views // per_input) * per_input


def _found(device: str) -> str:
    """Return the device that a setting means on this machine."""
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        fix = "use --run.device cpu; under ray give --run.gpus, or its workers see no GPU"
        raise SettingError("device", [Problem(place="--run.device cuda", found="torch finds no GPU", fix=fix)])
    return ("cuda" if there else "cpu") if device == "auto" else device


def spatial_spec(task: FeatureTask, spec: TeacherSpec, choice: TeacherChoice) -> ArraySpec:
    """Return the array of a teacher's spatial features of a set."""
    tokens, grid = teacher_tokens(spec, task.manifest.geometry), task.manifest.grid
    return ArraySpec(
        path=spatial_array(task.view_set, spec.name),
        shape=(grid.rows, tokens, tokens, spec.dim),
        dtype=choice.encoding,
        rows_per_shard=grid.rows_per_shard,
        compression=choice.compression,
    )


def summary_spec(task: FeatureTask, spec: TeacherSpec) -> ArraySpec:
    """Return the array of a teacher's summaries of a set."""
    if spec.summary_dim is None:
        raise MissingError("summary", [Problem(place=f"teacher {spec.name}", found="has none")])
    grid = task.manifest.grid
    return ArraySpec(
        path=summary_array(task.view_set, spec.name),
        shape=(grid.rows, spec.summary_dim),
        dtype="float32",
        rows_per_shard=grid.rows_per_shard,
    )
