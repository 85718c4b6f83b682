"""Verifying a cache: every committed byte is read, and everything that differs from what was committed is named."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from pipeline.inventory.commands import stats_command
from pipeline.inventory.commit_log import committed_units
from pipeline.inventory.unfinished import UnfinishedFacts, list_unfinished
from pipeline.verify.independent import read_independently, require_zarr
from pipeline.verify.leftovers import unnamed_objects
from pipeline.verify.manifests import CheckedManifests, read_manifests
from pipeline.verify.options import VerifyOptions
from pipeline.verify.problems import Findings
from pipeline.verify.shard_task import CheckTask
from pipeline.verify.tasks import check_shards, check_tasks
from pipeline.verify.teachers import check_stats
from pipeline.verify.verdict import ReadIndependently, Recomputed, Verdict
from pipeline.verify.worker import CheckReport
from pipeline.verify.zarr_metadata import metadata_name
from storage_schemas.cache import Cache
from storage_schemas.commits import UnitLog
from storage_schemas.format.errors import Problem
from storage_schemas.format.layout import FEATURES, features_unit, views_unit
from storage_schemas.format.snapshots import HEADS
from storage_schemas.rejected import rejected_count
from storage_schemas.unit_log import drop_kept_snapshots
from teachers.source import name_in_cache

Checked = Sequence[tuple[CheckTask, CheckReport]]
"""Every committed shard, with the result of its check."""


def verify_cache(cache: Cache, options: VerifyOptions) -> Verdict:
    """Read what is committed, and compare it with its records, its manifests and what is drawn for it.

    Args:
        cache: the cache.
        options: which teacher, whether the bytes of arrays are read, how many views to recompute and how many chunks to
            read independently, and the executor.

    Raises:
        MissingError: there is no cache, or no such teacher in it; or zarr-python is to read chunks, and is not
            installed.
        ContractError: it is of another format version.
        SettingError, IdentityError: a teacher is to be run again, and what is given is not the teacher of the cache.
        StorageError: the store fails, or the system refuses; or there is a link in the cache. Nothing is called damaged
            for that.
    """
    findings, teacher = Findings(), cache_name(options.teacher)
    _require_no_links(cache)
    if options.independent:
        require_zarr()  # before hours of reading
    manifests = read_manifests(cache, teacher, findings)
    recomputed = _recompute(cache, manifests, options, findings)
    committed = committed_units(cache, teacher)
    checked = _checked(cache, manifests, committed, options, findings)
    independent = _read_independently(cache, manifests, checked, options, findings)
    findings.problems.extend(_unnamed(manifests, committed, findings.problems))
    unfinished = _list_unfinished(cache, manifests, committed, checked, findings)
    canvases = set() if manifests.views is None else set(map(views_unit, manifests.views.manifest.sets))
    leftovers = unnamed_objects(cache, findings) if manifests.whole and not teacher else []
    return Verdict(
        problems=tuple(dict.fromkeys(findings.problems)),
        unfinished=tuple(unfinished),
        leftovers={leftover.name: leftover.bytes for leftover in leftovers if not leftover.is_foreign},
        foreign={leftover.name: leftover.bytes for leftover in leftovers if leftover.is_foreign},
        recomputed=tuple(recomputed),
        independent=independent,
        rejected=rejected_count({task.shard: report.records} for task, report in checked if task.name in canvases),
        units=len(committed),
        objects=sum(len(report.records) for _, report in checked),
        bytes=sum(record.bytes for _, report in checked for record in report.records),
        quick=options.quick,
    )


def _require_no_links(cache: Cache) -> None:
    """Refuse a local cache that holds links: a listing of its folders names them."""
    for folder in (FEATURES, "tables") if cache.store.is_local else ():
        cache.store.listing(folder)


def cache_name(teacher: str) -> str:
    """Return a teacher's name in the cache, where the user may have given its source instead."""
    return name_in_cache(teacher) if ":" in teacher else teacher


def _recompute(
    cache: Cache, manifests: CheckedManifests, options: VerifyOptions, findings: Findings
) -> list[Recomputed]:
    if not options.recompute:
        return []
    from pipeline.verify.recompute import recompute_teachers  # here, so that torch is loaded only where it is needed

    return recompute_teachers(cache, manifests, options, findings)


def _checked(
    cache: Cache,
    manifests: CheckedManifests,
    committed: Mapping[str, UnitLog],
    options: VerifyOptions,
    findings: Findings,
) -> Checked:
    """Check every committed shard."""
    drop_kept_snapshots()
    findings.referenced.update(name for log in committed.values() for name in log.objects())
    tasks = check_tasks(cache, manifests, committed)
    reports = check_shards(cache, tasks, options.run, quick=options.quick)
    for task, report in zip(tasks, reports, strict=True):
        findings.problems.extend(report.problems)
        findings.referenced.add(task.record)
        findings.referenced.update(record.path for record in report.records)
        findings.referenced.update(task.unit.objects(task.shard) if task.unit else ())
    return list(zip(tasks, reports, strict=True))


def _read_independently(
    cache: Cache, manifests: CheckedManifests, checked: Checked, options: VerifyOptions, findings: Findings
) -> ReadIndependently | None:
    if not options.independent:
        return None
    return read_independently(cache, manifests.teachers, checked, options.independent, options.run, findings)


def _views(checked: Checked) -> dict[str, int]:
    """Return how many views each unit has."""
    views = dict.fromkeys((task.name for task, _ in checked), 0)
    for task, report in checked:
        views[task.name] += report.records[0].rows if report.records else 0
    return views


def _unnamed(
    manifests: CheckedManifests, committed: Mapping[str, UnitLog], problems: Sequence[Problem]
) -> Iterator[Problem]:
    """Yield units that have committed shards and no manifest; a damaged manifest is a problem already."""
    damaged = {problem.place for problem in problems}
    units = {unit.name for unit in manifests.units}
    for name in (name for name in committed if name not in units):
        group = "views" if name.startswith("views/") else "/".join(name.split("/")[:2])
        if metadata_name(group) not in damaged:
            found = "has committed shards, and no manifest defines them"
            heads = "" if committed[name].head is None else f"{HEADS}/{name} and "
            fix = f"put {metadata_name(group)} back from a copy, or delete {heads}tables/shards/{name}"
            yield Problem(place=f"tables/shards/{name}", found=found, fix=fix)


def _list_unfinished(
    cache: Cache,
    manifests: CheckedManifests,
    committed: Mapping[str, UnitLog],
    checked: Checked,
    findings: Findings,
) -> list[UnfinishedFacts]:
    """List what is unfinished, and check the statistics on the way. Those of incomplete features are not listed."""
    shards = {unit.name: unit.grid.shards for unit in manifests.units}
    incomplete = {unit.name for unit in manifests.units if unit.grid.missing(committed.get(unit.name, ()))}
    incomplete |= {task.name for task, report in checked if not report.records}
    measured = set(_measured(cache, manifests, _views(checked), incomplete, findings))
    views = manifests.views and manifests.views.manifest
    return list(list_unfinished(cache, manifests.recipe, views, manifests.teachers, shards, committed, measured))


def _measured(
    cache: Cache, manifests: CheckedManifests, views: Mapping[str, int], incomplete: Collection[str], findings: Findings
) -> Iterator[str]:
    """Check the statistics of every teacher, and yield the teachers whose statistics are not to be listed."""
    for manifest in manifests.teachers:
        name = manifest.spec.name
        units = {view_set: features_unit(view_set, name) for view_set in manifest.tokens}
        complete = not any(unit in incomplete for unit in units.values())
        rows = {view_set: views.get(unit, 0) for view_set, unit in units.items()} if complete else None
        shards = {unit.view_set: unit.grid.shards for unit in manifests.units if unit.name in units.values()}
        stats = check_stats(cache, manifest, rows, shards, stats_command(cache, name), findings)
        if stats is not None or not complete:
            yield name
