"""Verifying a cache: every committed byte is read, and everything is found that is not what was committed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.inventory.commands import stats_command
from pipeline.inventory.commit_log import committed_units, exported_names, unit_command
from pipeline.inventory.stored_units import seeing_nothing_more
from pipeline.inventory.unfinished import UnfinishedFacts
from pipeline.verify.declared import Declared, read_declared
from pipeline.verify.findings import Findings
from pipeline.verify.leftovers import unnamed_objects
from pipeline.verify.metadata import metadata_name
from pipeline.verify.options import VerifyOptions
from pipeline.verify.recompute import Recomputed, recompute_teachers, teacher_name
from pipeline.verify.task import CheckTask
from pipeline.verify.tasks import check_shards, check_tasks
from pipeline.verify.teachers import check_stats
from pipeline.verify.worker import CheckReport
from storage_schemas.cache import Cache
from storage_schemas.commits import record_path
from storage_schemas.format.errors import Problem
from storage_schemas.format.layout import features_unit


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found."""

    problems: tuple[Problem, ...]
    """Everything that is not what was committed."""
    unfinished: tuple[UnfinishedFacts, ...]
    """What a killed or a waiting run has still to do: no damage."""
    leftovers: Mapping[str, int]
    """Objects that nothing names, with their bytes: no damage. Empty where a manifest that would say is damaged."""
    recomputed: tuple[Recomputed, ...]
    """What was run again."""
    units: int
    """Units of which anything is committed."""
    objects: int
    """Committed objects that were looked at."""
    bytes: int
    """Bytes of these."""
    quick: bool
    """Whether those of arrays were left unread."""


def verify_cache(cache: Cache, options: VerifyOptions) -> Verdict:
    """Read what is committed, and compare it with its records, its manifests and what is drawn for it.

    Args:
        cache: the cache.
        options: which teacher's units alone, whether arrays are left unread, how many views to run again, how the work
            is carried.

    Raises:
        MissingError: there is no cache, or no such teacher in it.
        ContractError: it is of another format version.
        SettingError, IdentityError: a teacher is to be run again, and the one at hand is not the cache's.
    """
    found, teacher = Findings(), teacher_name(options.teacher)
    declared = read_declared(cache, teacher, found)
    recomputed = recompute_teachers(cache, declared, options, found) if options.recompute else []
    committed = committed_units(cache, teacher)
    tasks = check_tasks(cache, declared, committed)
    reports = check_shards(cache, tasks, options.run, quick=options.quick)
    for task, report in zip(tasks, reports, strict=True):
        found.problems.extend(report.problems)
        found.known.add(record_path(task.name, task.shard))
        found.known.update(record.path for record in report.records)
        found.known.update(task.unit.objects(task.shard) if task.unit else ())
    found.problems.extend(_unnamed(declared, committed, found.problems))
    unfinished = list(_shards_left(cache, declared, committed))
    unread = {task.name for task, report in zip(tasks, reports, strict=True) if not report.records}
    unfinished += _stats_left(cache, declared, _views(tasks, reports), {one.unit for one in unfinished} | unread, found)
    left = unnamed_objects(cache, found) if declared.whole and not teacher else []
    return Verdict(
        problems=tuple(dict.fromkeys(found.problems)),
        unfinished=tuple(unfinished),
        leftovers={one.name: one.bytes for one in left},
        recomputed=tuple(recomputed),
        units=len(committed),
        objects=sum(len(report.records) for report in reports),
        bytes=sum(record.bytes for report in reports for record in report.records),
        quick=options.quick,
    )


def _views(tasks: Sequence[CheckTask], reports: Sequence[CheckReport]) -> dict[str, int]:
    views = dict.fromkeys((task.name for task in tasks), 0)
    for task, report in zip(tasks, reports, strict=True):
        views[task.name] += report.records[0].rows if report.records else 0
    return views


def _unnamed(
    declared: Declared, committed: Mapping[str, Sequence[int]], problems: Sequence[Problem]
) -> Iterator[Problem]:
    """Yield units that have committed shards and no manifest; a manifest that is damaged is named already."""
    damaged = {problem.place for problem in problems}
    units = {unit.name for unit in declared.units}
    for name in (name for name in committed if name not in units):
        group = "views" if name.startswith("views/") else "/".join(name.split("/")[:2])
        if metadata_name(group) not in damaged:
            found = "has committed shards, and no manifest says what they are"
            fix = f"put {metadata_name(group)} back from a copy, or delete tables/shards/{name}"
            yield Problem(place=f"tables/shards/{name}", found=found, fix=fix)


def _shards_left(cache: Cache, declared: Declared, committed: Mapping[str, Sequence[int]]) -> Iterator[UnfinishedFacts]:
    views = declared.views and declared.views.manifest
    exported = exported_names(views, declared.teachers)
    idle = seeing_nothing_more(views, declared.teachers, committed) if views else ()
    for unit in declared.units:
        if any(unit.name.endswith(f"/detail/{name}") for name in idle):
            continue  # what is there is checked, what is not is wanted by nobody
        done = len(set(committed.get(unit.name, ())) & set(range(unit.grid.shards)))
        if done < unit.grid.shards:
            command = unit_command(cache, declared.recipe, unit.name, exported)
            yield UnfinishedFacts(unit=unit.name, done=done, of=unit.grid.shards, command=command)


def _stats_left(
    cache: Cache, declared: Declared, views: Mapping[str, int], uncounted: Collection[str], found: Findings
) -> Iterator[UnfinishedFacts]:
    for manifest in declared.teachers:
        name = manifest.spec.name
        command, units = stats_command(cache, name), {one: features_unit(one, name) for one in manifest.tokens}
        complete = not any(unit in uncounted for unit in units.values())
        rows = {view_set: views.get(unit, 0) for view_set, unit in units.items()} if complete else None
        shards = {unit.view_set: unit.grid.shards for unit in declared.units if unit.name in units.values()}
        if check_stats(cache, manifest, rows, shards, command, found) is None and complete:
            yield UnfinishedFacts(unit=f"teachers/{name}/stats", done=0, of=1, command=command)
