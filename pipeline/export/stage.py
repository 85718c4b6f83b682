"""The export stage: a subset of a cache, as a cache of its own in another place. It resumes by itself."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

from pipeline.config import RunConfig
from pipeline.export.features import export_phi_s, exported_teachers
from pipeline.export.options import ExportOptions
from pipeline.export.selection import ExportedViews, select_views
from pipeline.export.tasks import UnitPair, missing_tasks, require_complete
from pipeline.export.worker import ExportReport, ExportTask, ShardExporter
from pipeline.inventory.commit_log import committed_units, unit_command
from pipeline.inventory.manifest_units import canvas_units, detail_units, detailed_teachers, feature_units, stored_sides
from pipeline.inventory.units import Unit
from pipeline.leases.lease import WHOLE_LEASE, leased
from pipeline.leases.names import LEASES
from pipeline.workers.open_pool import open_pool
from pipeline.workers.progress import Say, progress
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, MissingError, Problem, SettingError
from storage_schemas.format.identity import require_same
from storage_schemas.format.layout import FORMAT_VERSION, images_part
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.tables import to_parquet
from storage_schemas.objects.publish import TEMPORARY, publish_bytes, publish_group
from storage_schemas.shard_writer import create_array

ANOTHER_PLACE = "use the settings that began this export, or point TO at a new place"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Export:
    """What is taken of a cache, ready to run."""

    source: Cache
    views: ViewsManifest
    """What the source says of its views."""
    target: Cache
    exported: ExportedViews
    teachers: Mapping[str, TeacherManifest]
    """What the target will say of each teacher, by name."""
    pairs: tuple[UnitPair, ...]
    """Units to be written: views before the features of them."""


def plan_export(source: Cache, target: Cache, options: ExportOptions) -> Export:
    """Check that what is wanted of a cache is all there, and may go where it is to go.

    Raises:
        MissingError: there is no cache, or what is wanted of it is not complete.
        SettingError: source and target are one; there is no such set, teacher or image; no view is left; an encoding
            that says more than is stored.
        IdentityError: the target holds something else.
    """
    recipe, views = source.require(), source.views_manifest()
    _require_apart(source, target)
    if views is None:
        raise MissingError("views", [Problem(place=source.store.uri, found="were never cut", fix="run `make views`")])
    exported = select_views(source, views, options)
    teachers = exported_teachers(source, exported.manifest, options)
    pairs = (
        *_canvases(views, exported.manifest),
        *(pair for name in _detailed(source, teachers, options) for pair in _details(source, views, exported, name)),
        *(pair for name, one in teachers.items() for pair in _features(source, views, exported, name, one)),
    )
    names = [pair.source.name for pair in pairs]
    require_complete(source, pairs, {name: f"run `{unit_command(source, recipe, name)}`" for name in names})
    _require_same_export(target, exported.manifest, teachers)
    return Export(source=source, views=views, target=target, exported=exported, teachers=teachers, pairs=pairs)


def export_cache(export: Export, run: RunConfig, say: Say) -> None:
    """Bring an export to completion. What is committed is not touched.

    Raises:
        CorruptionError, MissingError: the source is damaged. What is committed is kept.
        BusyError: another run is writing to the target.
    """
    what = f"{_views(export)} views of {len(export.teachers)} teachers"
    if _tasks(export):
        # whatever else writes here meanwhile might be what this export brings
        with leased(export.target, WHOLE_LEASE, "export") as lease:
            ours = replace(export, target=lease.cache)
            _require_same_export(lease.cache, export.exported.manifest, export.teachers)
            if tasks := _tasks(ours):
                _export(ours, tasks, what, run, say)
                return
    say(f"export: complete, nothing to do ({what} at {export.target.store.uri})")


def _tasks(export: Export) -> list[ExportTask]:
    return list(missing_tasks(export.source, export.views, export.target, export.exported, export.pairs))


def _export(export: Export, tasks: Sequence[ExportTask], what: str, run: RunConfig, say: Say) -> None:
    _declare(export)
    total = sum(pair.target.grid.views for pair in export.pairs)
    waiting = sum(len(task.target.grid.slots(task.shard)) for task in tasks)
    say(f"export: {what}; {len(tasks)} shards to write at {export.target.store.uri}")
    reports: list[ExportReport] = []
    factory = partial(ShardExporter, source=export.source.store, target=export.target.store)
    with (
        open_pool(factory, replace(run, gpus=0), tasks=len(tasks)) as pool,
        progress("export", done=total - waiting, total=total, report=run.report) as bar,
    ):
        for index, report in pool.run(ShardExporter.export, tasks):
            reports.append(report)
            bar.add(len(tasks[index].target.grid.slots(tasks[index].shard)), size=report.bytes)
    size, copied = (sum(getattr(one, name) for one in reports) for name in ("bytes", "copied"))
    say(f"export: wrote {size / 1e6:.1f} MB, {copied / 1e6:.1f} MB of it copied as it is, in {bar.rate}")
    if saturated := sum(one.saturated for one in reports):
        say(f"export: int8: {saturated} numbers were as large as it holds, or larger")
    say(f"export: next: `make stats CACHE={export.target.store.uri}`; statistics are those of what is stored")


def _require_apart(source: Cache, target: Cache) -> None:
    """Refuse a target that is the source, lies in it, or holds it."""
    one, other = (_place(cache) for cache in (source, target))
    if one[0] == other[0] and (f"{one[1]}/".startswith(f"{other[1]}/") or f"{other[1]}/".startswith(f"{one[1]}/")):
        found = f"is not apart from the cache that is exported, {source.store.uri}"
        raise SettingError("TO", [Problem(place=target.store.uri, found=found, fix="point TO at a new place")])


def _place(cache: Cache) -> tuple[str, str]:
    path = cache.store.path("")
    return type(cache.store.filesystem).__name__, os.path.realpath(path) if cache.store.is_local else path


def _require_same_export(target: Cache, views: ViewsManifest, teachers: Mapping[str, TeacherManifest]) -> None:
    """Refuse a target that holds anything but this export, or a start of it."""
    if target.attributes("") is None:
        # a run that was killed at its very first object leaves that one's temporary file
        strange = (name for name in target.store.listing("") if not name.startswith(f"{LEASES}/"))
        if any(not name.endswith(TEMPORARY) for name in strange):
            found, fix = "is not empty, and holds no cache", "point TO at a new place"
            raise IdentityError("TO", [Problem(place=target.store.uri, found=found, fix=fix)])
        return
    there = {"recipe": target.require()}
    require_same(f"export to {target.store.uri}", there, {"recipe": views.identity["recipe"]}, ANOTHER_PLACE)
    stored = target.views_manifest()
    if stored is not None:
        require_same(f"export to {target.store.uri}", stored.attributes(), views.attributes(), ANOTHER_PLACE)
    for name, manifest in teachers.items():
        held = target.teacher_manifest(name)
        if held is not None:
            subject = f"teacher {name} of the export to {target.store.uri}"
            require_same(subject, held.attributes(), manifest.attributes(), ANOTHER_PLACE)


def _canvases(views: ViewsManifest, exported: ViewsManifest) -> Iterator[UnitPair]:
    return _paired(canvas_units(views), canvas_units(exported))


def _features(
    source: Cache, views: ViewsManifest, exported: ExportedViews, name: str, manifest: TeacherManifest
) -> Iterator[UnitPair]:
    stored = source.teacher_manifest(name)
    if stored is None:
        raise MissingError(f"teacher {name}", [Problem(place=source.store.uri, found="has no features yet")])
    return _paired(feature_units(views, stored), feature_units(exported.manifest, manifest))


def _detailed(source: Cache, teachers: Mapping[str, TeacherManifest], options: ExportOptions) -> list[str]:
    """Return the teachers whose details are taken: the fixed ones among those whose features are."""
    if not options.details:
        return []
    fixed = {one.spec.forward_of for one in teachers.values() if one.spec.size_rule == "fixed"}
    if gone := sorted(fixed - set(detailed_teachers(committed_units(source)))):
        fix = "leave --details out, or cut them again with `make views`"
        problems = [Problem(place=name, found="has no details in this cache", fix=fix) for name in gone]
        raise MissingError("details", problems)
    return sorted(fixed)


def _details(source: Cache, views: ViewsManifest, exported: ExportedViews, name: str) -> Iterator[UnitPair]:
    sides = stored_sides(source, views, name)
    taken = {view_set: side for view_set, side in sides.items() if view_set in exported.manifest.sets}
    return _paired(detail_units(views, name, sides), detail_units(exported.manifest, name, taken))


def _paired(source: Sequence[Unit], target: Sequence[Unit]) -> Iterator[UnitPair]:
    by_name = {unit.name: unit for unit in source}
    return (UnitPair(source=by_name[unit.name], target=unit) for unit in target)


def _declare(export: Export) -> None:
    """Write what the target says of itself. What is there already is the same."""
    target, views = export.target.store, export.exported.manifest
    publish_group(target, "", {"format": FORMAT_VERSION, "recipe": views.identity["recipe"]})
    for number, part in enumerate(export.exported.parts):
        publish_bytes(target, images_part(number), to_parquet(part.table()))
    publish_group(target, "views", views.attributes())
    for pair in export.pairs:
        if pair.target.teacher is None:
            for spec in pair.target.arrays:
                create_array(target, spec)
    if export.teachers:
        publish_group(target, "teachers")
    for name, manifest in export.teachers.items():
        export_phi_s(export.source, export.target, name)
        for pair in export.pairs:
            if pair.target.teacher == manifest.spec:
                for spec in pair.target.arrays:
                    create_array(target, spec)
        publish_group(target, f"teachers/{name}", manifest.attributes())


def _views(export: Export) -> int:
    return sum(shape.grid.views for shape in export.exported.manifest.sets.values())
