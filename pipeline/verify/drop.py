"""The drop stage: takes one teacher, or view sets of it, out of a cache when the user asks for that.

The order of deletion keeps a half-deleted teacher from being taken for a whole one, wherever the stage is killed:

1. the statistics: without them no student learns from the teacher
2. the heads of the commit log, then the commit records: a shard without its record does not count
3. parts of tables, and shards of arrays, which nothing names any more
4. the manifest, then PHI-S and the metadata of arrays: where a whole teacher goes

After a kill, `verify` and `inspect` call the teacher unfinished, or the rest of it leftovers. The same command goes on;
as long as the manifest is there, `extract` brings the features back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from pipeline.inventory.commands import export_command, extract_command
from pipeline.leases.claim import described
from pipeline.leases.lease import WHOLE_LEASE, leased, list_claims
from pipeline.text_table import sized
from pipeline.verify.leftovers import Leftover, delete, detail_folders, log_folders
from pipeline.verify.options import DropOptions
from pipeline.verify.stage import cache_name
from pipeline.workers.progress import Say
from storage_schemas.cache import Cache
from storage_schemas.format.errors import AbstractStillhouseError, MissingError, Problem, SettingError
from storage_schemas.format.layout import FEATURES
from storage_schemas.format.object_names import is_ours
from storage_schemas.format.teacher import forward_of
from storage_schemas.objects.store import Store

TEACHERS = f"{FEATURES}/teachers"
RECORDS, PLACEMENTS = "tables/shards/teachers", "tables/placements"
METADATA = "zarr.json"
NO_SETS = frozenset({"phi_s", "stats"})
"""Folders of a teacher that hold no features."""
Sizes = Mapping[str, int]
"""Objects of a folder, with their sizes (bytes)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What of a teacher can be deleted."""

    parts: tuple[tuple[str, tuple[Leftover, ...]], ...]
    """Folders, each with its objects; both in the order in which they are deleted."""

    @property
    def objects(self) -> list[Leftover]:
        """All objects, in the order in which they are deleted."""
        return [leftover for _, objects in self.parts for leftover in objects]

    def __str__(self) -> str:
        return f"{len(self.objects)} objects, {sized(sum(leftover.bytes for leftover in self.objects))}"


def drop_teacher(cache: Cache, options: DropOptions, say: Say) -> None:
    """List what a cache holds of a teacher; with `options.delete`, delete it under the lease of the whole cache.

    Args:
        cache: the cache.
        options: the teacher, its view sets, and whether anything is deleted.
        say: takes each line.

    Raises:
        MissingError: there is no cache, or nothing of this teacher in it.
        SettingError: there is nothing of a view set; or another teacher shares the details that are to be deleted.
        BusyError: something is to be deleted while another run writes.
        StorageError: there is a link in the teacher's folders, or the store fails.
    """
    recipe, options = cache.require(), replace(options, teacher=cache_name(options.teacher))
    if options.delete:
        back = _way_back(cache, recipe, options.teacher)
        with leased(cache, WHOLE_LEASE, f"drop {options.teacher}") as lease:
            dropped = _find(lease.cache, options, say)
            delete(lease.cache, dropped.objects)
        say(f"drop {options.teacher}: {dropped}, deleted; {back}")
        return
    dropped = _find(cache, options, say)
    for claim in list_claims(cache.store):
        if not claim.stale:
            say(f"drop: nothing can be deleted now: {claim.lease} is being written by {described(claim)}")
    back = _way_back(cache, recipe, options.teacher)
    say(f"drop {options.teacher}: {dropped}, can be deleted; nothing is deleted without --delete; {back}")


def _way_back(cache: Cache, recipe: str, teacher: str) -> str:
    """Say which command computes the teacher again."""
    try:
        manifest = cache.teacher_manifest(teacher)
    except AbstractStillhouseError:  # a teacher whose manifest is damaged can be dropped too
        manifest = None
    exported = manifest is not None and manifest.exported
    command = export_command(cache) if exported else extract_command(cache, recipe, teacher)
    return f"`{command}` brings it back"


def _find(cache: Cache, options: DropOptions, say: Say) -> Dropped:
    """Find what can be deleted, and say the name, the number of objects and the size of each folder."""
    _require_teacher(cache.store, options.teacher)
    sets = _chosen_sets(cache.store, options)
    details = _details(cache, options.teacher, options.sets) if options.details else []
    folders = list(_in_order(cache, options.teacher, sets, details, whole=not options.sets))
    ours = [
        (folder, tuple(Leftover(name=name, bytes=size) for name, size in sizes.items() if is_ours(name)))
        for folder, sizes in folders
    ]
    parts = tuple((folder, objects) for folder, objects in ours if objects)
    for folder, objects in parts:
        say(f"  {folder}: {len(objects)} objects, {sized(sum(leftover.bytes for leftover in objects))}")
    for name in dict.fromkeys(name for _, sizes in folders for name in sizes if not is_ours(name)):
        say(f"  {name}: Stillhouse did not write it, and it stays")
    return Dropped(parts=parts)


def _in_order(
    cache: Cache, teacher: str, sets: Sequence[str], details: Sequence[tuple[str, ...]], *, whole: bool
) -> Iterator[tuple[str, Sizes]]:
    """Yield folders, each with its objects, in the order in which they are deleted."""
    store, group = cache.store, f"{TEACHERS}/{teacher}"
    yield _metadata_first(store, f"{group}/stats")
    logs = [log_folders(f"teachers/{teacher}/{view_set}") for view_set in sets]
    logs += [folders[:-1] for folders in details]
    arrays = [folders[-1] for folders in details]
    tables = [f"{PLACEMENTS}/{teacher}/{view_set}" for view_set in sets]
    for folder in (*(folder for folders in zip(*logs, strict=True) for folder in folders), *tables, *arrays):
        yield folder, store.sizes(folder)
    metadata: dict[str, int] = {}
    for view_set in sets:
        sizes = store.sizes(f"{group}/{view_set}")
        metadata |= {name: size for name, size in sizes.items() if name.endswith(f"/{METADATA}")}
        yield f"{group}/{view_set}", {name: size for name, size in sizes.items() if name not in metadata}
    if not whole:
        return
    yield _file(store, f"{group}/{METADATA}")
    if not set(cache.teachers()) - {teacher}:
        yield _file(store, f"{TEACHERS}/{METADATA}")  # a cache without teachers has no such group
    yield _metadata_first(store, f"{group}/phi_s")
    yield f"{group}/*/{METADATA}", metadata


def _file(store: Store, name: str) -> tuple[str, Sizes]:
    size = store.size(name)
    return name, {} if size is None else {name: size}


def _metadata_first(store: Store, group: str) -> tuple[str, Sizes]:
    """Return a group's objects, its own metadata first: without it, its arrays count for nothing."""
    sizes = store.sizes(group)
    return group, dict(sorted(sizes.items(), key=lambda item: item[0] != f"{group}/{METADATA}"))


def _require_teacher(store: Store, teacher: str) -> None:
    """Refuse a name under which the cache has nothing."""
    folders = (TEACHERS, RECORDS, PLACEMENTS)
    known = _with_objects(store, folders, lambda name: is_ours(f"{TEACHERS}/{name}/{METADATA}"))
    if teacher not in known:
        found, fix = "has no features in this cache", f"choose from: {', '.join(known) or 'none'}"
        raise MissingError("TEACHER", [Problem(place=teacher, found=found, fix=fix)])


def _chosen_sets(store: Store, options: DropOptions) -> list[str]:
    """Return the view sets that something of the teacher is stored of; with `options.sets`, these alone."""
    group = f"{TEACHERS}/{options.teacher}"
    folders = (group, f"{RECORDS}/{options.teacher}", f"{PLACEMENTS}/{options.teacher}")
    known = _with_objects(store, folders, lambda name: name not in NO_SETS and is_ours(f"{group}/{name}/{METADATA}"))
    fix = f"choose from: {', '.join(known) or 'none'}"
    found = f"is no view set with features of {options.teacher}"
    problems = [Problem(place=name, found=found, fix=fix) for name in options.sets if name not in known]
    if problems:
        raise SettingError("--sets", problems)
    return list(dict.fromkeys(options.sets)) or known


def _with_objects(store: Store, folders: Sequence[str], accepts: Callable[[str], bool]) -> list[str]:
    """Return the names in some folders that are accepted and hold an object: what was deleted leaves empty folders."""
    names = sorted({name for folder in folders for name in store.children(folder) if accepts(name)})
    return [name for name in names if any(store.listing(f"{folder}/{name}") for folder in folders)]


def _details(cache: Cache, teacher: str, sets: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the folders of a fixed teacher's details, by set; see `detail_folders`.

    Raises:
        SettingError: other maps of the same network are in the cache, and may need the details.
    """
    forward, views = forward_of(teacher), cache.views_manifest()
    sharing = [name for name in cache.teachers() if forward_of(name) == forward and name != teacher]
    if sharing:
        found, fix = (
            f"are those of {', '.join(sharing)} too",
            "leave it out; gc --details deletes what no teacher needs",
        )
        raise SettingError("--details", [Problem(place=f"details of {forward}", found=found, fix=fix)])
    known = () if views is None else views.sets
    return [detail_folders(view_set, forward) for view_set in known if not sets or view_set.name in sets]
