"""Tasks of the extract stage: from the pixels of a shard to its moments, or to its stored features."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int8, Shaped
from torch import Tensor

from pipeline.config import TeacherChoice
from pipeline.features.forward import view_features
from pipeline.features.teacher import RunningTeacher, run_teacher
from pipeline.features.tiling import ViewFeatures
from pipeline.inventory.arrays import spatial_spec, summary_spec
from pipeline.inventory.inputs import inputs_per_view, views_per_input
from pipeline.phi_s.moments import Moments
from pipeline.phi_s.observe import Observer
from pipeline.views.placements import Placement, place_views, placements_table
from pipeline.workers.device import Device, device_of
from pipeline.workers.prefetch import behind
from storage_schemas.cache import Cache
from storage_schemas.commits import read_commit
from storage_schemas.format.computed_by import ComputedBy
from storage_schemas.format.encodings import INT8_LARGEST, Coding
from storage_schemas.format.errors import IdentityError, Problem
from storage_schemas.format.feature_storage import FeatureStorage
from storage_schemas.format.identity import differences
from storage_schemas.format.latents import LARGEST
from storage_schemas.format.layout import (
    detail_array,
    detail_unit,
    features_unit,
    pixels_array,
    table_part,
    views_unit,
)
from storage_schemas.format.manifest import ViewSetManifest
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import Shifts, ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, ShardWriter, array_record, commit, open_shard, write_table_part
from storage_schemas.sharded_array import ShardedArray

FeatureWriters = tuple[ShardWriter, ShardWriter | None]
"""The writers of a map's spatial features, and of its summaries where it has any."""

Stored = tuple[np.ndarray, np.ndarray | None]
"""Spatial features and summaries of some views, as stored."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTask:
    """One shard of a view set, and the maps of the teacher that are to be computed of it."""

    view_set: ViewSet
    manifest: ViewSetManifest
    shard: int
    identities: Mapping[str, str]
    """These maps, by their names in the cache, each with the digest of its features; an empty one for calibration."""
    computed_by: ComputedBy
    """Code and libraries of the teacher that the task is for: on another node they may be others."""
    storages: Mapping[str, FeatureStorage]
    """How these maps are stored, by their names; empty for calibration."""
    first: int = 0
    """Calibration only: how many of the shard's first views are observed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureReport:
    """The result of a task."""

    views: int
    forwards: int
    """Inputs that the teacher processed (images, or mosaics)."""
    bytes: int
    """Bytes of the arrays that were written."""
    saturated: int
    """Numbers at or beyond the largest value of `int8`; 0 for other encodings."""
    coarser: int
    """Tokens of `pca8` whose steps are coarser, because a number of theirs is too large for a byte."""
    device: Device
    """The device that the teacher ran on."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunningIdentity:
    """What a worker's teacher computes features with."""

    weights_sha256: str
    """SHA-256 of its weights."""
    computed_by: ComputedBy
    """Its code and its libraries."""


@final
class StoredMap(NamedTuple):
    """The way from a map's raw tokens to what is stored of them."""

    mean: Float[Tensor, " channels"]
    """Mean of raw tokens, which is subtracted."""
    weight: Float[Tensor, "channels stored"]
    """What they are multiplied by: PHI-S, and then the analysis of latents where these are stored."""
    coding: Coding


@final
class FeatureExtractor:
    """The worker of the extract stage: it holds one teacher, and the frozen PHI-S of each of its maps."""

    def __init__(
        self,
        *,
        store: Store,
        choice: TeacherChoice,
        seed: int,
        shifts: Shifts,
        device: str,
        compiled: bool,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self._cache = Cache(store=store)
        self._choice = choice
        self._seed = seed
        self._shifts = shifts
        self._device = device
        self._compiled = compiled
        self._maps: dict[str, StoredMap] = {}

    @cached_property
    def _running(self) -> RunningTeacher:
        return run_teacher(self._choice, self._device, compiled=self._compiled)

    @cached_property
    def _computed_by(self) -> ComputedBy:
        return self._running.computed_by

    def identify(self, _: None) -> RunningIdentity:
        """Return the SHA-256 of the teacher's weights, its code and its libraries."""
        return RunningIdentity(weights_sha256=self._running.weights_sha256, computed_by=self._computed_by)

    def observe(self, task: FeatureTask) -> dict[str, Moments]:
        """Return the moments of each map's raw tokens over a shard's first views, which are training views.

        Raises:
            ContractError: the teacher returned NaN or infinity.
            IdentityError: this worker's code or libraries are not those of the worker that was asked first.
        """
        self._require_same_code(task)
        views = self._cache.shard_views(task.view_set, task.shard)
        placements = self._placements(task, views)[: self._whole_mosaics(task.first, task)]
        left, observers = task.first, {spec: Observer() for spec in self._wanted(task)}
        for features in self._features(task, placements):
            for spec, observer in observers.items():
                observer.add(features.maps[spec.layer][:left].flatten(0, 2))
            left -= len(features.maps[None][:left])
        return {spec.name: observer.moments() for spec, observer in observers.items()}

    def extract(self, task: FeatureTask) -> FeatureReport:
        """Write a shard's features and placements, and commit them, map by map.

        Raises:
            ContractError: the teacher returned NaN or infinity. Nothing of the shard is stored.
            IdentityError: as `observe`.
        """
        self._require_same_code(task)
        views = self._cache.shard_views(task.view_set, task.shard)
        placements, wanted = self._placements(task, views), self._wanted(task)
        saturated, coarser = 0, 0
        with ExitStack() as stack:
            writers = {spec: self._open(stack, task, spec) for spec in wanted}
            with behind() as later:
                for features in self._features(task, placements):
                    for spec in wanted:
                        stored, of_latents = self._stored(task, spec, features), writers[spec][0].spec.latents
                        later(_append, writers[spec], stored)
                        saturated += 0 if of_latents else saturated_count(stored[0])
                        coarser += int(np.count_nonzero(stored[0][..., 0])) if of_latents else 0
        for spec in wanted:
            self._commit(task, spec, placements, [writer for writer in writers[spec] if writer is not None])
        return FeatureReport(
            views=len(placements),
            forwards=self._forwards(len(placements), task),
            bytes=sum(writer.sink.size for pair in writers.values() for writer in pair if writer is not None),
            saturated=saturated,
            coarser=coarser,
            device=device_of(self._running.teacher.device),
        )

    def _require_same_code(self, task: FeatureTask) -> None:
        expected, found = task.computed_by.attributes(), self._computed_by.attributes()
        if unlike := differences(expected, found, "the first worker"):
            fix = "give every node the same modules and libraries; docs/cluster.md"
            place = f"on {platform.node()}"
            raise IdentityError(
                f"teacher {self._choice.name} {place}", [*unlike, Problem(place="what to do", found=fix)]
            )

    def _wanted(self, task: FeatureTask) -> list[TeacherSpec]:
        return [spec for spec in self._running.maps if spec.name in task.identities]

    def _open(self, stack: ExitStack, task: FeatureTask, spec: TeacherSpec) -> FeatureWriters:
        store, shape = self._cache.store, (task.view_set, task.manifest)
        array = spatial_spec(*shape, spec, task.storages[spec.name])
        spatial = stack.enter_context(open_shard(store, array, task.shard))
        if spec.summary_dim is None:
            return spatial, None
        return spatial, stack.enter_context(open_shard(store, summary_spec(*shape, spec), task.shard))

    def _stored(self, task: FeatureTask, spec: TeacherSpec, features: ViewFeatures) -> Stored:
        """Return a map's features as they are stored. They leave the teacher's device in their final size."""
        stored_map = self._stored_map(task, spec)
        spatial = encoded((features.maps[spec.layer] - stored_map.mean) @ stored_map.weight, stored_map.coding)
        if spec.summary_dim is None or features.summary is None:
            return spatial.cpu().numpy(), None
        return spatial.cpu().numpy(), features.summary.cpu().numpy()

    def _stored_map(self, task: FeatureTask, spec: TeacherSpec) -> StoredMap:
        """Return the way from raw tokens of a map to what is stored of them, on the teacher's device."""
        name, device = spec.name, self._running.teacher.device
        if name not in self._maps:
            phi_s, _ = self._cache.require_phi_s(name)
            coding = self._cache.coding(spatial_spec(task.view_set, task.manifest, spec, task.storages[name]))
            weight = phi_s.forward_weight.T
            if coding.latents is not None:
                weight = (phi_s.rotation.T / phi_s.scale @ coding.latents.analysis).astype(np.float32)
            mean, weight = phi_s.mean.astype(np.float32), np.ascontiguousarray(weight)
            on_device = [torch.from_numpy(values).to(device) for values in (mean, weight)]
            self._maps[name] = StoredMap(mean=on_device[0], weight=on_device[1], coding=coding)
        return self._maps[name]

    def _commit(
        self, task: FeatureTask, spec: TeacherSpec, placements: list[Placement], writers: Sequence[ShardWriter]
    ) -> None:
        unit = features_unit(task.view_set, spec.name)
        key = ShardKey(unit=unit, shard=task.shard, identity=task.identities[spec.name])
        name = table_part("placements", f"{spec.name}/{task.view_set.name}", task.shard)
        first_row = task.manifest.grid.slots(task.shard).start
        part = write_table_part(self._cache.store, name, placements_table(placements), first_row, key)
        commit(self._cache.store, key, [*(array_record(writer, key) for writer in writers), part])

    def _placements(self, task: FeatureTask, views: pa.Table) -> list[Placement]:
        geometry = task.manifest.geometry
        return place_views(self._running.spec, self._seed, self._shifts, task.view_set, geometry, views)

    def _features(self, task: FeatureTask, placements: list[Placement]) -> Iterator[ViewFeatures]:
        source = teacher_pixels(self._cache, self._running.spec, task.view_set, task.shard)
        return view_features(self._running, task.view_set, source, task.manifest.geometry, placements)

    def _whole_mosaics(self, views: int, task: FeatureTask) -> int:
        per_input = views_per_input(self._running.spec, task.manifest.geometry)
        return -(-views // per_input) * per_input

    def _forwards(self, views: int, task: FeatureTask) -> int:
        spec, geometry = self._running.spec, task.manifest.geometry
        inputs = self._whole_mosaics(views, task) // views_per_input(spec, geometry)
        return inputs * inputs_per_view(spec, task.view_set)


def encoded(numbers: Float[Tensor, "*tokens channels"], coding: Coding) -> Shaped[Tensor, "*tokens stored"]:
    """Return numbers as they are stored, on the same device; see `encodings.as_stored`.

    Args:
        numbers: PHI-S units; for `pca8` latents in steps.
        coding: how they are stored.
    """
    if coding.encoding == "pca8":
        return encoded_latents(numbers)
    if coding.encoding == "int8":
        return (numbers / coding.step).round().clamp(-INT8_LARGEST, INT8_LARGEST).to(torch.int8)
    return numbers.to(torch.float16 if coding.encoding == "float16" else torch.float32)


def encoded_latents(in_steps: Float[Tensor, "*tokens kept"]) -> Int8[Tensor, "*tokens stored"]:
    """Return latents as they are stored, on the same device, in memory with channels before tokens.

    It computes what `storage_schemas.format.latents.rounded_latents` does.
    """
    largest = in_steps.abs().amax(dim=-1, keepdim=True)
    exponents = torch.frexp(largest / (LARGEST + 0.5)).exponent.clamp(min=0)
    steps = torch.ldexp(in_steps, -exponents).round()
    stored = torch.cat([exponents.to(torch.int8), steps.to(torch.int8)], dim=-1)
    return stored.movedim(-1, 1).contiguous().movedim(1, -1)


def saturated_count(spatial: Shaped[np.ndarray, "*entry"]) -> int:
    """Count the stored numbers at the largest value of `int8`: larger numbers were clipped to it."""
    return int((np.abs(spatial) == INT8_LARGEST).sum()) if spatial.dtype == np.int8 else 0


def _append(writers: FeatureWriters, stored: Stored) -> None:
    for writer, entries in zip(writers, stored, strict=True):
        if writer is not None and entries is not None:
            for entry in entries:
                writer.append(entry)


def teacher_pixels(cache: Cache, spec: TeacherSpec, view_set: ViewSet, shard: int) -> ShardedArray:
    """Open one committed shard of a teacher's input: the canvases, or a fixed teacher's details."""
    fixed = spec.size_rule == "fixed"
    unit = detail_unit(view_set, spec.forward_of) if fixed else views_unit(view_set)
    array = detail_array(view_set, spec.forward_of) if fixed else pixels_array(view_set)
    return cache.array(array, {shard: read_commit(cache.store, unit, shard)})
