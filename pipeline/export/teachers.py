"""The teachers of an export: their manifests, for features as stored or in a smaller encoding, and their PHI-S."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np

from pipeline.config import NEW_LEVEL, chosen_step, level_problems, step_problems
from pipeline.export.options import ExportOptions
from pipeline.export.selection import chosen_names
from storage_schemas.cache import Cache
from storage_schemas.format.encodings import INT8_STEP
from storage_schemas.format.errors import MissingError, Problem, SettingError
from storage_schemas.format.feature_storage import STORAGE_FIELDS, FeatureStorage
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.views import teacher_tokens
from storage_schemas.objects.publish import publish_group
from storage_schemas.small_arrays import write_small_arrays


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTeacher:
    """A teacher of an export."""

    stored: TeacherManifest
    """Its manifest in the source."""
    manifest: TeacherManifest
    """Its manifest in the target."""


def exported_teachers(source: Cache, views: ViewsManifest, options: ExportOptions) -> dict[str, ExportedTeacher]:
    """Return the teachers of an export, by name.

    Args:
        source: the cache that is exported.
        views: manifest of the export's views.
        options: what is exported.

    Raises:
        SettingError: there is no such teacher, or the encoding is more precise than what is stored.
        MissingError: a teacher has no features yet.
    """
    names = chosen_names("--teachers", options.teachers, source.teachers())
    stored = {name: _stored_manifest(source, name) for name in names}
    if problems := [problem for manifest in stored.values() for problem in _encoding_problems(manifest, options)]:
        raise SettingError("--encoding", problems)
    return {
        name: ExportedTeacher(stored=manifest, manifest=_exported_manifest(manifest, views, options))
        for name, manifest in stored.items()
    }


def export_phi_s(source: Cache, target: Cache, teacher: str) -> None:
    """Copy a teacher's PHI-S. Its attributes are written last: without them there is no PHI-S.

    Raises:
        MissingError: it is gone.
        CorruptionError: it is damaged.
    """
    group = f"teachers/{teacher}/phi_s"
    phi_s, attributes = source.require_phi_s(teacher)
    arrays = {"mean": phi_s.mean, "rotation": phi_s.rotation, "scale": np.array(phi_s.scale)}
    write_small_arrays(target.store, group, arrays)
    publish_group(target.store, group, attributes)


def _stored_manifest(source: Cache, teacher: str) -> TeacherManifest:
    manifest = source.teacher_manifest(teacher)
    if manifest is None:
        fix = f"finish `make extract TEACHER={teacher}`, or name other teachers with --teachers"
        problem = Problem(place=source.store.uri, found="has no features of this teacher yet", fix=fix)
        raise MissingError(f"teacher {teacher}", [problem])
    return manifest


def _exported_manifest(manifest: TeacherManifest, views: ViewsManifest, options: ExportOptions) -> TeacherManifest:
    stored, storage = manifest.identity, exported_storage(FeatureStorage.of_identity(manifest.identity), options)
    kept = {name: value for name, value in stored.items() if name not in STORAGE_FIELDS}
    identity = {**kept, "views": views.digest, **storage.identity(), "source": dict(stored)}
    tokens = {
        view_set: teacher_tokens(manifest.spec, view_set, shape.geometry) for view_set, shape in views.sets.items()
    }
    return TeacherManifest(spec=manifest.spec, identity=identity, tokens=tokens)


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
        step=chosen_step(options.step, options.fidelity) or before,
        level=options.compression_level or level,
    )


def _encoding_problems(manifest: TeacherManifest, options: ExportOptions) -> Iterator[Problem]:
    stored = FeatureStorage.of_identity(manifest.identity)
    target, name = exported_storage(stored, options), manifest.spec.name
    fix = "export it with --encoding keep; --teachers names the others, which can be added to the export later"
    if np.dtype(target.encoding).itemsize > np.dtype(stored.encoding).itemsize:
        found = f"is stored as {stored.encoding}: {target.encoding} would add bytes and no precision"
        yield Problem(place=name, found=found, fix=fix)
    elif target.encoding == stored.encoding == "int8" and target.step < stored.step:
        found = f"is stored in steps of {stored.step:.3g}: steps of {target.step:.3g} would add bytes and no precision"
        yield Problem(place=name, found=found, fix="leave --step and --fidelity out for it, or give a coarser step")
    for problem in step_problems(target.encoding, options.step, options.fidelity):
        yield Problem(place=f"{name}, {problem.place}", found=problem.found, fix=problem.fix)
    for problem in level_problems(target.compression, options.compression_level):
        yield Problem(place=f"{name}, {problem.place}", found=problem.found, fix=problem.fix)
