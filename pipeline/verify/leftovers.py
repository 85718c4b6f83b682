"""What a cache no longer needs: objects that nothing names, and details that every teacher has seen."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import final

from pipeline.config import TeacherChoice
from pipeline.inventory.commands import stats_command
from pipeline.inventory.commit_log import committed_units
from pipeline.inventory.teacher_maps import map_specs
from pipeline.inventory.unfinished import unfinished_maps
from pipeline.verify.declared import read_declared
from pipeline.verify.findings import Findings, noting
from pipeline.verify.teachers import check_stats
from storage_schemas.cache import Cache
from storage_schemas.commits import read_commit, record_path
from storage_schemas.format.errors import CorruptionError, IdentityError, Problem
from storage_schemas.format.layout import FEATURES, detail_array, detail_unit, views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.pending_uploads import PendingUpload, pending_uploads
from storage_schemas.objects.publish import require_claim


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An object that can go."""

    name: str
    """Relative to the cache."""
    bytes: int


def unnamed_objects(cache: Cache, found: Findings) -> list[Leftover]:
    """Return the objects that nothing in the cache names, sorted: what killed runs left, and what is not ours.

    Args:
        cache: the cache.
        found: with all that is named.
    """
    names = {*cache.store.listing(FEATURES), *cache.store.listing("tables")} - found.known
    return [Leftover(name=name, bytes=cache.store.size(name) or 0) for name in sorted(names)]


def find_leftovers(cache: Cache) -> list[Leftover]:
    """Read all that a cache says of itself, and return what nothing in it names.

    Raises:
        MissingError: there is no cache.
        CorruptionError: something that would say is damaged. Nothing is then known to be left over.
    """
    found = Findings()
    declared = read_declared(cache, "", found)
    for manifest in declared.teachers:
        check_stats(cache, manifest, None, {}, stats_command(cache, manifest.spec.name), found)
    units = {unit.name: unit for unit in declared.units}
    for name, shards in committed_units(cache).items():
        for shard in shards:
            place = record_path(name, shard)
            found.known.add(place)
            with noting(found.problems, place, "`make verify` says what to do"):
                found.known.update(record.path for record in read_commit(cache.store, name, shard))
            if name in units:
                # what was seen is kept too, where its own record was lost: images may be gone by now
                seen = views_unit(units[name].view_set)
                found.known.update(units[name].objects(shard), units[seen].objects(shard))
            else:
                found.note(place, "is of a unit that no manifest names", "`make verify` says what to do")
    if found.problems:
        raise CorruptionError(f"cache {cache.store.uri}", found.problems)
    return unnamed_objects(cache, found)


def spent_details(cache: Cache, views: ViewsManifest, choices: Iterable[TeacherChoice]) -> list[Leftover]:
    """Return the details of the fixed teachers among `choices` whose features are complete, commit records first.

    Details are read by `extract` alone. They can be cut again from the images, to the same bytes.
    """
    spent = [maps[0] for choice in choices if not unfinished_maps(cache, views, maps := map_specs(choice))]
    names = [
        name
        for spec in spent
        if spec.size_rule == "fixed"
        for folders in zip(*(_detail_folders(view_set, spec) for view_set in views.sets), strict=True)
        for folder in folders
        for name in cache.store.listing(folder)
    ]
    return [Leftover(name=name, bytes=cache.store.size(name) or 0) for name in names]


def stale_uploads(cache: Cache, hours: float) -> list[PendingUpload]:
    """Return the uploads to a cache that began so long ago that their writers must be dead."""
    latest = datetime.now(UTC) - timedelta(hours=hours)
    return [one for one in pending_uploads(cache.store) if one.begun <= latest]


def delete(cache: Cache, leftovers: Iterable[Leftover]) -> None:
    """Delete objects, in their order: a commit record before what it names.

    Raises:
        IdentityError: one has another size than when it was found: it is being written.
        StorageError: the claim under which the cache is to be written is gone.
    """
    for one in leftovers:
        require_claim(cache.store)
        size = cache.store.size(one.name)
        if size is None:
            continue  # a run that was still writing it gave it its name, or took it away
        if size != one.bytes:
            fix = "wait until no run writes to this cache"
            raise IdentityError("leftover", [Problem(place=one.name, found="is being written", fix=fix)])
        cache.store.remove(one.name)


def _detail_folders(view_set: ViewSet, spec: TeacherSpec) -> tuple[str, str]:
    return f"tables/shards/{detail_unit(view_set, spec.name)}", f"{FEATURES}/{detail_array(view_set, spec.name)}"
