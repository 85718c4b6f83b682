"""What a cache no longer needs: objects that nothing names, details that every teacher has read, dead uploads.

Files of others may lie among them. They are told apart by their names, and only those that a user names are deleted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import final

from pipeline.config import TeacherChoice
from pipeline.inventory.commands import stats_command
from pipeline.inventory.commit_log import committed_units
from pipeline.inventory.teacher_maps import map_specs
from pipeline.inventory.unfinished import unfinished_maps
from pipeline.inventory.units import Unit
from pipeline.verify.manifests import read_manifests
from pipeline.verify.problems import Findings, collecting
from pipeline.verify.teachers import check_stats
from storage_schemas.cache import Cache
from storage_schemas.commits import UnitLog
from storage_schemas.format.errors import CorruptionError, IdentityError, Problem
from storage_schemas.format.layout import FEATURES, detail_array, detail_unit, views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.object_names import is_ours
from storage_schemas.format.snapshots import HEADS, SNAPSHOTS
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.pending_uploads import PendingUpload, pending_uploads
from storage_schemas.objects.publish import require_claim
from storage_schemas.unit_log import LOG

SEE_VERIFY = "`make verify` says what to do"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An object that nothing in the cache needs."""

    name: str
    """Relative to the cache."""
    bytes: int

    @property
    def is_foreign(self) -> bool:
        """Whether its name is none that Stillhouse gives, so that others put it there."""
        return not is_ours(self.name)


def unnamed_objects(cache: Cache, findings: Findings) -> list[Leftover]:
    """Return the objects that nothing in the cache names, sorted: what killed runs left, and what is not ours.

    Args:
        cache: the cache.
        findings: with every object that is named.
    """
    names = {*cache.store.listing(FEATURES), *cache.store.listing("tables")} - findings.referenced
    return [Leftover(name=name, bytes=cache.store.size(name) or 0) for name in sorted(names)]


def find_leftovers(cache: Cache) -> list[Leftover]:
    """Return the objects of ours that nothing in a cache names; it raises what `find_unnamed` raises."""
    return [leftover for leftover in find_unnamed(cache) if not leftover.is_foreign]


def find_unnamed(cache: Cache) -> list[Leftover]:
    """Return the objects that no manifest, group or commit record of a cache names, files of others among them.

    Raises:
        MissingError: there is no cache.
        CorruptionError: a manifest or a record is damaged: then it is unknown what it names.
        StorageError: there is a link in the cache, or the store fails.
    """
    findings = Findings()
    manifests = read_manifests(cache, "", findings)
    for manifest in manifests.teachers:
        check_stats(cache, manifest, None, {}, stats_command(cache, manifest.spec.name), findings)
    units = {unit.name: unit for unit in manifests.units}
    for log in committed_units(cache).values():
        findings.referenced.update(log.objects())
        for shard in log:
            _add_referenced(units, log, shard, findings)
    if findings.problems:
        raise CorruptionError(f"cache {cache.store.uri}", findings.problems)
    return unnamed_objects(cache, findings)


def _add_referenced(units: dict[str, Unit], log: UnitLog, shard: int, findings: Findings) -> None:
    """Add what a committed shard needs to the objects that are named."""
    name, place = log.unit, log.place(shard)
    findings.referenced.add(place)
    with collecting(findings.problems, place, SEE_VERIFY):
        findings.referenced.update(record.path for record in log.read(shard))
    if name not in units:
        findings.add(place, "is of a unit that no manifest names", SEE_VERIFY)
        return
    # its views are kept even where their own record was lost: the source images may no longer exist
    views = views_unit(units[name].view_set)
    findings.referenced.update(units[name].objects(shard), units[views].objects(shard))


def spent_details(cache: Cache, views: ViewsManifest, choices: Sequence[TeacherChoice]) -> list[Leftover]:
    """Return the details of the fixed teachers among `choices` whose features are complete, commit records first.

    Only `extract` reads details. They can be cut again from the images, to the same bytes.

    Args:
        cache: the cache.
        views: manifest of its views.
        choices: the teachers of its recipe; of a recipe that names none, those in the cache count.
    """
    teachers = [map_specs(choice) for choice in choices] if choices else _maps_in(cache)
    spent = [maps[0] for maps in teachers if not unfinished_maps(cache, views, maps)]
    names = [
        name
        for spec in spent
        if spec.size_rule == "fixed"
        for folders in zip(*(detail_folders(view_set, spec.name) for view_set in views.sets), strict=True)
        for folder in folders
        for name in cache.store.listing(folder)
        if is_ours(name)
    ]
    return [Leftover(name=name, bytes=cache.store.size(name) or 0) for name in names]


def _maps_in(cache: Cache) -> list[list[TeacherSpec]]:
    """Return the specs of the maps of each teacher in a cache, that of the last block first."""
    maps: dict[str, list[TeacherSpec]] = {}
    for name in sorted(cache.teachers()):
        if (manifest := cache.teacher_manifest(name)) is not None:
            maps.setdefault(manifest.spec.forward_of, []).append(manifest.spec)
    return [sorted(specs, key=lambda spec: len(spec.name)) for specs in maps.values()]


def stale_uploads(cache: Cache, hours: float) -> list[PendingUpload] | None:
    """Return the unfinished uploads to a cache that began so many hours ago or more: their writers must be dead.

    None where the server does not list uploads.
    """
    latest, pending = datetime.now(UTC) - timedelta(hours=hours), pending_uploads(cache.store)
    return None if pending is None else [upload for upload in pending if upload.begun <= latest]


def delete(cache: Cache, leftovers: Iterable[Leftover]) -> None:
    """Delete objects, in their order: a commit record before what it names.

    Raises:
        IdentityError: an object has another size than when it was found: a run is writing it.
        StorageError: the claim under which the cache is written is gone.
    """
    for leftover in leftovers:
        require_claim(cache.store)
        size = cache.store.size(leftover.name)
        if size is None:
            continue  # a run that was still writing this temporary object has renamed or removed it
        if size != leftover.bytes:
            fix = "wait until no run writes to this cache"
            raise IdentityError("leftover", [Problem(place=leftover.name, found="is being written", fix=fix)])
        cache.store.remove(leftover.name)


def detail_folders(view_set: ViewSet, teacher: str) -> tuple[str, ...]:
    """Return the folders of a fixed teacher's details of a set: of the commit log, head first, then of their array."""
    unit = detail_unit(view_set, teacher)
    return *log_folders(unit), f"{FEATURES}/{detail_array(view_set, teacher)}"


def log_folders(unit: str) -> tuple[str, ...]:
    """Return the folders of a unit's commit log in the order in which they are deleted.

    Without a head the records count alone, and without these nothing does.
    """
    return f"{HEADS}/{unit}", f"{LOG}/{unit}", f"{SNAPSHOTS}/{unit}"
