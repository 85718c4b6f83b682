"""What an export takes of the teachers of a cache: their features, as they are or encoded in fewer bytes, and PHI-S."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.export.options import ExportOptions
from pipeline.export.selection import named
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem, SettingError
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.views import teacher_tokens
from storage_schemas.objects.publish import publish_group
from storage_schemas.small_arrays import write_small_arrays


def exported_teachers(source: Cache, views: ViewsManifest, options: ExportOptions) -> dict[str, TeacherManifest]:
    """Return what an export will say of each teacher that it takes, by name.

    Args:
        source: the cache.
        views: what the export says of its views.
        options: what is wanted.

    Raises:
        SettingError: there is no such teacher, or its features are to say more than is stored.
        MissingError: one has no features yet.
    """
    names = named("--teachers", options.teachers, source.teachers())
    manifests = {name: source.teacher_manifest(name) for name in names}
    problems, exported = [], {}
    for name, manifest in manifests.items():
        if manifest is None:
            fix = f"finish `make extract TEACHER={name}`, or name others with --teachers"
            raise MissingError(
                f"teacher {name}", [Problem(place=source.store.uri, found="has no features yet", fix=fix)]
            )
        problems += list(_encoding_problems(manifest, options))
        exported[name] = _exported(manifest, views, options)
    if problems:
        raise SettingError("--encoding", problems)
    return exported


def export_phi_s(source: Cache, target: Cache, teacher: str) -> None:
    """Copy a teacher's PHI-S as it was frozen. Its attributes come last: until they are there, nothing is frozen.

    Raises:
        MissingError: it is gone.
        CorruptionError: it is damaged.
    """
    group = f"teachers/{teacher}/phi_s"
    phi_s, attributes = source.phi_s(teacher), source.attributes(group)
    if phi_s is None or attributes is None:
        found = "is gone, and features were stored under it"
        raise MissingError("PHI-S", [Problem(place=group, found=found, fix="put it back from a copy of the cache")])
    arrays = {"mean": phi_s.mean, "rotation": phi_s.rotation, "scale": np.array(phi_s.scale)}
    write_small_arrays(target.store, group, arrays)
    publish_group(target.store, group, attributes)


def _exported(manifest: TeacherManifest, views: ViewsManifest, options: ExportOptions) -> TeacherManifest:
    stored = manifest.identity
    wanted = {"encoding": options.encoding, "compression": options.compression}
    said: dict[str, Any] = {name: stored[name] if value == "keep" else value for name, value in wanted.items()}
    identity = {**stored, "views": views.digest, **said, "source": dict(stored)}
    tokens = {one: teacher_tokens(manifest.spec, one, shape.geometry) for one, shape in views.sets.items()}
    return TeacherManifest(spec=manifest.spec, identity=identity, tokens=tokens)


def _encoding_problems(manifest: TeacherManifest, options: ExportOptions) -> Iterator[Problem]:
    stored = manifest.identity["encoding"]
    if options.encoding != "keep" and np.dtype(options.encoding).itemsize > np.dtype(stored).itemsize:
        found = f"is stored as {stored}, and {options.encoding} would say more than is there"
        fix = "leave --encoding at keep for it; --teachers names the others, which may join the export later"
        yield Problem(place=manifest.spec.name, found=found, fix=fix)
