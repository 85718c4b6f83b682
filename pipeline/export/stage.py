"""The export stage: it writes a subset of a cache as a cache of its own, and resumes where it was stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

from pipeline.compact.stage import seal_finished
from pipeline.config import RunConfig
from pipeline.export.options import ExportOptions
from pipeline.export.pairs import UnitPair, require_complete, unit_pairs
from pipeline.export.selection import ExportedViews, select_views
from pipeline.export.target import require_apart, require_same_export, write_declarations
from pipeline.export.tasks import missing_tasks
from pipeline.export.teachers import exported_teachers
from pipeline.export.worker import ExportReport, ExportTask, ShardExporter
from pipeline.inventory.commit_log import unit_command
from pipeline.leases.lease import WHOLE_LEASE, leased
from pipeline.views.accepted import copy_accepted
from pipeline.views.tasks import read_committed
from pipeline.workers.open_pool import open_pool
from pipeline.workers.progress import Say, progress
from storage_schemas.cache import Cache
from storage_schemas.format.compressor import zstd_codec
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.latents import Latents
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.rejected import rejected_count, rejected_line


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Export:
    """An export that was checked and can be run."""

    source: Cache
    views: ViewsManifest
    """Manifest of the source's views."""
    target: Cache
    exported: ExportedViews
    teachers: Mapping[str, TeacherManifest]
    """The teachers' manifests in the target, by name."""
    latents: Mapping[str, Latents | None]
    """The latents that each teacher is stored in there, by name; None where it is stored in none."""
    pairs: tuple[UnitPair, ...]
    """Units to be written: views before features of them."""


def plan_export(source: Cache, target: Cache, options: ExportOptions) -> Export:
    """Check that everything to be exported is complete, and that the target may hold it.

    Raises:
        MissingError: there is no cache, or it is not complete in what is to be exported.
        SettingError: source and target overlap; there is no such set, teacher or image; no view is selected; the
            encoding is more precise than what is stored.
        IdentityError: the target holds something else.
    """
    recipe, views = source.require(), source.views_manifest()
    require_apart(source, target)
    if views is None:
        problem = Problem(place=source.store.uri, found="no view was cut yet", fix="run `make views`")
        raise MissingError("views", [problem])
    exported = select_views(source, views, options)
    chosen = exported_teachers(source, target, exported.manifest, options)
    latents = {name: teacher.latents for name, teacher in chosen.items()}
    teachers = {name: teacher.manifest for name, teacher in chosen.items()}
    if any(manifest.identity["compression"] == "zstd" for manifest in teachers.values()):
        zstd_codec()  # refused now, and not at the first chunk
    pairs = unit_pairs(source, views, exported, chosen, details=options.details)
    names = [pair.source.name for pair in pairs]
    require_complete(source, pairs, {name: f"run `{unit_command(source, recipe, name)}`" for name in names})
    require_same_export(target, exported.manifest, teachers)
    return Export(
        source=source,
        views=views,
        target=target,
        exported=exported,
        teachers=teachers,
        latents=latents,
        pairs=tuple(pairs),
    )


def export_cache(export: Export, run: RunConfig, say: Say) -> None:
    """Complete an export. Committed shards are not written again.

    Raises:
        CorruptionError, MissingError: the source is damaged. What is committed is kept.
        BusyError: another run is writing to the target.
    """
    what = f"{_view_count(export)} views of {len(export.teachers)} teachers"
    if _tasks(export):
        with leased(export.target, WHOLE_LEASE, "export") as lease:
            ours = replace(export, target=lease.cache)
            # another run may have written to the target before this one had the lease
            require_same_export(lease.cache, export.exported.manifest, export.teachers)
            if tasks := _tasks(ours):
                _export(ours, tasks, what, run, say)
                _say_rejected(ours, say)
                return
    say(f"export: complete, nothing to do ({what} at {export.target.store.uri})")
    _say_rejected(export, say)


def _tasks(export: Export) -> list[ExportTask]:
    return list(missing_tasks(export.source, export.views, export.target, export.exported, export.pairs))


def _export(export: Export, tasks: Sequence[ExportTask], what: str, run: RunConfig, say: Say) -> None:
    write_declarations(export.source, export.target, export.exported, export.teachers, export.latents, export.pairs)
    copy_accepted(export.source, export.target)
    total = sum(pair.target.grid.views for pair in export.pairs)
    missing = sum(len(task.target.grid.slots(task.shard)) for task in tasks)
    say(f"export: {what}; {len(tasks)} shards to write at {export.target.store.uri}")
    reports: list[ExportReport] = []
    factory = partial(ShardExporter, source=export.source.store, target=export.target.store)
    with (
        open_pool(factory, replace(run, gpus=0), tasks=len(tasks)) as pool,
        progress("export", done=total - missing, total=total, report=run.report) as bar,
    ):
        for index, report in pool.run(ShardExporter.export, tasks):
            reports.append(report)
            bar.add(len(tasks[index].target.grid.slots(tasks[index].shard)), size=report.bytes)
    seal_finished(export.target, [pair.target.name for pair in export.pairs], "export", say)
    _say_result(export, reports, bar.rate, say)


def _say_result(export: Export, reports: Sequence[ExportReport], rate: str, say: Say) -> None:
    size, copied = sum(report.bytes for report in reports), sum(report.copied for report in reports)
    say(f"export: wrote {size / 1e6:.1f} MB, {copied / 1e6:.1f} MB of it copied without decoding, in {rate}")
    if saturated := sum(report.saturated for report in reports):
        say(f"export: int8: {saturated} numbers are at the largest value that int8 holds, or were beyond it")
    say(f"export: next: `make stats CACHE={export.target.store.uri}`: an export has no statistics yet")


def _say_rejected(export: Export, say: Say) -> None:
    manifest = export.exported.manifest
    committed = read_committed(export.target, manifest, dict.fromkeys(manifest.sets, ()))
    if rejected := rejected_count(committed.canvases.values()):
        say(f"export: {rejected_line(export.target.store.uri, rejected)}")


def _view_count(export: Export) -> int:
    return sum(shape.grid.views for shape in export.exported.manifest.sets.values())
