"""The teachers of an export: their manifests, for features as stored or in a smaller encoding, and their PHI-S."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from pipeline.config import NEW_LEVEL, PCA_FIDELITY, chosen_step, level_problems, step_problems
from pipeline.export.options import ExportOptions
from pipeline.export.selection import chosen_names
from pipeline.phi_s.latents import latents_of
from pipeline.phi_s.moments import covariance, merge_all
from pipeline.stats.stored import read_sums
from storage_schemas.cache import Cache
from storage_schemas.format.encodings import INT8_STEP, Encoding
from storage_schemas.format.errors import MissingError, Problem, SettingError
from storage_schemas.format.feature_storage import STORAGE_FIELDS, FeatureStorage, LatentsKey
from storage_schemas.format.latents import Latents, latents_digest
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.views import teacher_tokens
from storage_schemas.objects.publish import publish_group
from storage_schemas.read_latents import read_latents, write_latents
from storage_schemas.small_arrays import write_small_arrays


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTeacher:
    """A teacher of an export."""

    stored: TeacherManifest
    """Its manifest in the source."""
    manifest: TeacherManifest
    """Its manifest in the target."""
    latents: Latents | None
    """The latents that it is stored in there; None where it is stored in none."""


def exported_teachers(
    source: Cache, target: Cache, views: ViewsManifest, options: ExportOptions
) -> dict[str, ExportedTeacher]:
    """Return the teachers of an export, by name.

    Args:
        source: the cache that is exported.
        target: where the export goes: latents that it holds already are kept.
        views: manifest of the export's views.
        options: what is exported.

    Raises:
        SettingError: there is no such teacher, or the encoding is more precise than what is stored.
        MissingError: a teacher has no features yet, or no statistics though latents are chosen from them.
    """
    names = chosen_names("--teachers", options.teachers, source.teachers())
    stored = {name: _stored_manifest(source, name) for name in names}
    if problems := [problem for manifest in stored.values() for problem in _encoding_problems(manifest, options)]:
        raise SettingError("--encoding", problems)
    return {name: _exported(source, target, manifest, views, options) for name, manifest in stored.items()}


def export_phi_s(source: Cache, target: Cache, teacher: str, latents: Latents | None, fidelity: float) -> None:
    """Copy a teacher's PHI-S, after its latents. Its attributes are written last: without them there is no PHI-S.

    Args:
        source: the cache that is exported.
        target: where the export goes.
        teacher: the teacher's name.
        latents: those that its features are stored in; None where they are stored in none.
        fidelity: that the latents were chosen for.

    Raises:
        MissingError: it is gone.
        CorruptionError: it is damaged.
    """
    group = f"teachers/{teacher}/phi_s"
    phi_s, attributes = source.require_phi_s(teacher)
    arrays = {"mean": phi_s.mean, "rotation": phi_s.rotation, "scale": np.array(phi_s.scale)}
    if latents is not None:
        write_latents(target.store, teacher, latents, fidelity)
    write_small_arrays(target.store, group, arrays)
    publish_group(target.store, group, attributes)


def _stored_manifest(source: Cache, teacher: str) -> TeacherManifest:
    manifest = source.teacher_manifest(teacher)
    if manifest is None:
        fix = f"finish `make extract TEACHER={teacher}`, or name other teachers with --teachers"
        problem = Problem(place=source.store.uri, found="has no features of this teacher yet", fix=fix)
        raise MissingError(f"teacher {teacher}", [problem])
    return manifest


def _exported(
    source: Cache, target: Cache, manifest: TeacherManifest, views: ViewsManifest, options: ExportOptions
) -> ExportedTeacher:
    stored, storage = manifest.identity, exported_storage(FeatureStorage.of_identity(manifest.identity), options)
    latents = None
    if storage.encoding == "pca8":
        fidelity = options.fidelity or PCA_FIDELITY if storage.latents is None else storage.latents.fidelity
        latents = _latents(source, target, manifest, fidelity)
        key = LatentsKey(sha256=latents_digest(latents), kept=latents.kept, fidelity=fidelity)
        storage = replace(storage, latents=key)
    kept = {name: value for name, value in stored.items() if name not in STORAGE_FIELDS}
    identity = {**kept, "views": views.digest, **storage.identity(), "source": dict(stored)}
    tokens = {
        view_set: teacher_tokens(manifest.spec, view_set, shape.geometry) for view_set, shape in views.sets.items()
    }
    declared = TeacherManifest(spec=manifest.spec, identity=identity, tokens=tokens)
    return ExportedTeacher(stored=manifest, manifest=declared, latents=latents)


def _latents(source: Cache, target: Cache, manifest: TeacherManifest, fidelity: float) -> Latents:
    """Return the latents of an export: those of the source, else those of the target, else chosen from statistics."""
    name, stats = manifest.spec.name, None
    if manifest.identity["encoding"] == "pca8":
        return _require_latents(source, name)
    if (begun := read_latents(target.store, name)) is not None and begun[1]["fidelity"] == fidelity:
        return begun[0]  # statistics of the source may have changed since
    stats = source.stats(name)
    sums = read_sums(source, manifest, stats)
    if not sums.sets:
        found, fix = "latents are chosen from the statistics of these features, and there are none", "run `make stats`"
        raise MissingError("statistics", [Problem(place=f"teachers/{name}/stats", found=found, fix=fix)])
    return latents_of(covariance(merge_all(sums.sets.values())), fidelity)


def _require_latents(cache: Cache, teacher: str) -> Latents:
    read = read_latents(cache.store, teacher)
    if read is None:
        found, fix = "are gone, and features are stored in them", "put them back from a copy of the cache"
        raise MissingError("latents", [Problem(place=f"teachers/{teacher}/latents", found=found, fix=fix)])
    return read[0]


def exported_storage(stored: FeatureStorage, options: ExportOptions) -> FeatureStorage:
    """Return how features are stored in an export.

    Args:
        stored: how they are stored in the source.
        options: what is exported.
    """
    encoding = stored.encoding if options.encoding == "keep" else options.encoding
    compression = stored.compression if options.compression == "keep" else options.compression
    before = stored.step if encoding == stored.encoding else INT8_STEP
    level = stored.level if compression == stored.compression else NEW_LEVEL
    return FeatureStorage(
        encoding=encoding,
        compression=compression,
        step=(chosen_step(options.step, options.fidelity) if encoding == "int8" else None) or before,
        level=options.compression_level or level,
        latents=stored.latents,
    )


_PRECISION: Sequence[Encoding] = ("float32", "float16", "int8", "pca8")
"""Encodings, the most precise first."""


def _encoding_problems(manifest: TeacherManifest, options: ExportOptions) -> Iterator[Problem]:
    stored = FeatureStorage.of_identity(manifest.identity)
    target, name = exported_storage(stored, options), manifest.spec.name
    fix = "export it with --encoding keep; --teachers names the others, which can be added to the export later"
    if _PRECISION.index(target.encoding) < _PRECISION.index(stored.encoding):
        found = f"is stored as {stored.encoding}: {target.encoding} would add bytes and no precision"
        yield Problem(place=name, found=found, fix=fix)
    elif stored.latents is not None and options.fidelity not in (None, stored.latents.fidelity):
        found = f"is stored as pca8 at fidelity {stored.latents.fidelity:g}, and latents are not rounded twice"
        yield Problem(place=name, found=found, fix="leave --fidelity out, or export the cache that it was made from")
    elif target.encoding == stored.encoding == "int8" and target.step < stored.step:
        found = f"is stored in steps of {stored.step:.3g}: steps of {target.step:.3g} would add bytes and no precision"
        yield Problem(place=name, found=found, fix="leave --step and --fidelity out for it, or give a coarser step")
    for problem in step_problems(target.encoding, options.step, options.fidelity):
        yield Problem(place=f"{name}, {problem.place}", found=problem.found, fix=problem.fix)
    for problem in level_problems(target.compression, options.compression_level):
        yield Problem(place=f"{name}, {problem.place}", found=problem.found, fix=problem.fix)
