"""The cache, open for reading: what the trainer, the stages of the pipeline and a user's own program see of it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import pyarrow as pa

from storage_schemas.cached_views import CachedView, Units, ViewReader
from storage_schemas.commits import Commits, UnitLog, open_log, open_logs, read_records
from storage_schemas.contents import CacheContents, read_contents
from storage_schemas.format import layout
from storage_schemas.format.encodings import Coding
from storage_schemas.format.manifest import CacheManifests, TeacherManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.format.stats import TeacherStats
from storage_schemas.format.tables import PLACEMENTS, REJECTED, VIEWS, from_parquet
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.open_shards import UnitCommits
from storage_schemas.open_views import open_views
from storage_schemas.read_cache import ReadCache
from storage_schemas.read_groups import (
    read_attributes,
    read_manifests,
    read_teacher_manifest,
    read_views_manifest,
    require_cache,
    teacher_names,
)
from storage_schemas.read_latents import read_coding
from storage_schemas.read_phi_s import phi_s_of, read_phi_s, require_phi_s
from storage_schemas.read_stats import read_stats
from storage_schemas.read_tables import read_table
from storage_schemas.sharded_array import ShardedArray, open_array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A cache. It holds nothing open and may be sent to other processes.

    cache = Cache.open("out/demo/cache")
    cache.contents()                          # view sets and teachers, with counts
    cache.view("low-128", 17, units="raw")    # one view with the features of all its teachers
    cache.open_views("low-128")               # all views of a set, to read one by one
    """

    store: Store
    """Where it is."""
    kept: ReadCache | None = None
    """Keeps what is read of its arrays on this machine; None to keep nothing. See `open_read_cache`."""

    @classmethod
    def open(cls, uri: str) -> "Cache":
        """Open a cache for reading.

        Args:
            uri: a folder, or any URI that fsspec reaches, such as `s3://bucket/prefix`.

        Raises:
            MissingError: there is no cache.
            ContractError: it has another format version.
        """
        cache = cls(store=Store(uri=uri))
        cache.require()
        return cache

    def contents(self) -> CacheContents:
        """Return what is in the cache, with counts. It reads no array, and only commit records that are not sealed.

        Raises:
            MissingError: there is no cache.
        """
        return read_contents(self.store)

    def view(
        self, view_set: str, row: int, *, teachers: Collection[str] | None = None, units: Units = "phi-s"
    ) -> CachedView:
        """Read one view and what each teacher gave for it.

        To read many views, call `open_views` once: `view` reads the records and the tables of the shard at every call.

        Args:
            view_set: name of the set, such as `low-128`.
            row: row slot in the set.
            teachers: names of the teachers; None for all that have features of the set, empty for the pixels alone.
            units: units of the spatial features. Summaries are in raw teacher units always.

        Raises:
            MissingError: the view, or the features of it, were never committed; or the cache lacks a teacher.
            SettingError: the cache has no such view set, or the set no such row slot.
            CorruptionError: stored bytes are not those that were committed.
        """
        return open_views(self.store, self.kept, view_set, teachers, units, row).read(row)

    def open_views(
        self, view_set: str, *, teachers: Collection[str] | None = None, units: Units = "phi-s"
    ) -> ViewReader:
        """Open all views of a set, after checking that every shard is committed: of the pixels, and of each teacher.

        Args:
            view_set: name of the set, such as `low-128`.
            teachers: names of the teachers; None for all that have features of the set, empty for the pixels alone.
            units: units of the spatial features. Summaries are in raw teacher units always.

        Raises:
            MissingError: shards were never committed, or the cache lacks a teacher.
            SettingError: the cache has no such view set.
            CorruptionError: a record, a table or metadata is damaged.
        """
        return open_views(self.store, self.kept, view_set, teachers, units)

    def require(self) -> str:
        """Check that there is a cache of the format version that this code reads.

        Returns:
            The name of the recipe that made it.

        Raises:
            MissingError: there is no cache.
            ContractError: it has another format version.
            CorruptionError: it does not name its recipe.
        """
        return require_cache(self.store)

    def attributes(self, group: str) -> dict[str, Any] | None:
        """Return what a group says of itself, or None where it says nothing yet.

        Args:
            group: path of the group inside `features.zarr`; `""` for the root.

        Raises:
            CorruptionError: its metadata is damaged, or its seal does not match.
        """
        return read_attributes(self.store, group)

    def coding(self, spec: ArraySpec) -> Coding:
        """Return what the entries of an array of features stand for; `as_numbers` makes numbers of them.

        Args:
            spec: the array.

        Raises:
            MissingError: it holds latents, and these are gone.
            CorruptionError: the latents are damaged, or others than the array was stored in.
            ContractError: it holds pixels.
        """
        return read_coding(self.store, spec)

    def manifests(self, teachers: Iterable[str] = ()) -> CacheManifests:
        """Read the manifests of the views and of some teachers, each object once.

        Args:
            teachers: names of the teachers; those without a manifest are left out.

        Raises:
            MissingError, ContractError, CorruptionError: as `require`.
        """
        return read_manifests(self.store, teachers)

    def views_manifest(self) -> ViewsManifest | None:
        """Return the manifest of the views, or None before any view was cut."""
        return read_views_manifest(self.store)

    def teacher_manifest(self, teacher: str) -> TeacherManifest | None:
        """Return the manifest of a teacher, or None where the cache has none."""
        return read_teacher_manifest(self.store, teacher)

    def teachers(self) -> list[str]:
        """Return the names of the teachers whose extraction has begun, sorted."""
        return teacher_names(self.store)

    def records(self, unit: str, identity: str, shards: Iterable[int] | None = None) -> Commits:
        """Return a unit's commit records by shard number.

        Args:
            unit: its name; see `storage_schemas.format.layout`.
            identity: digest that every record must carry.
            shards: shards to read the records of, all of them committed; the unit's open log for all of its shards;
                None for all committed shards.

        Raises:
            MissingError: a shard that is named is not committed.
            ContractError: a record carries another identity.
        """
        return read_records(self.store, unit, identity, shards)

    def log(self, unit: str) -> UnitLog:
        """Open the commit log of a unit: which shards are committed, and the records of those that are asked for.

        It reads the head and lists what is newer, however many shards there are; `UnitLog.read` then reads one shard's
        records.

        Args:
            unit: its name; see `storage_schemas.format.layout`.

        Raises:
            CorruptionError, ContractError: the head of the log is damaged.
        """
        return open_log(self.store, unit)

    def logs(self, folder: str = "") -> dict[str, UnitLog]:
        """Open the commit logs of all units below a folder, such as `views` or `teachers/dinov3`, by unit.

        Units without a committed shard are left out.

        Raises:
            CorruptionError, ContractError: the head of a log is damaged.
        """
        return open_logs(self.store, folder)

    def array(self, path: str, commits: UnitCommits) -> ShardedArray:
        """Open a sharded array for reading.

        Args:
            path: the array, inside `features.zarr`.
            commits: commit records of the shards that may be read.

        Raises:
            MissingError: there is no such array.
            ContractError: its metadata is not that of an array of ours, or a record does not fit the array.
        """
        return open_array(self.store, path, commits, self.kept)

    def views(self, view_set: ViewSet, commits: Commits) -> pa.Table:
        """Return the `views` table of a set over committed shards, in order of row."""
        return read_table(self.store, "views", view_set.name, VIEWS, commits)

    def shard_views(self, view_set: ViewSet, shard: int) -> pa.Table:
        """Return the `views` rows of one committed shard, without reading its commit record."""
        name = layout.table_part("views", view_set.name, shard)
        [table] = self.store.read_parsed([name], lambda body, place: from_parquet(body, VIEWS, place))
        return table

    def rejected(self, view_set: ViewSet, commits: Commits) -> pa.Table:
        """Return the `rejected` table of a set over committed shards, shard by shard."""
        return read_table(self.store, "rejected", view_set.name, REJECTED, commits)

    def placements(self, view_set: ViewSet, teacher: str, commits: Commits) -> pa.Table:
        """Return the `placements` table of a teacher and a set over committed shards, in order of row."""
        return read_table(self.store, "placements", f"{teacher}/{view_set.name}", PLACEMENTS, commits)

    def phi_s(self, teacher: str) -> PhiS | None:
        """Return a teacher's frozen PHI-S map, or None before it was fitted.

        Raises:
            CorruptionError: its arrays are not those that were frozen.
        """
        return read_phi_s(self.store, teacher)

    def phi_s_of(self, teacher: str, attributes: Mapping[str, Any]) -> PhiS:
        """Return a teacher's frozen PHI-S map, given the attributes of its group.

        Raises:
            CorruptionError: its arrays are not those that were frozen.
        """
        return phi_s_of(self.store, teacher, attributes)

    def require_phi_s(self, teacher: str) -> tuple[PhiS, dict[str, Any]]:
        """Return the PHI-S map that a teacher's features were stored under, and the attributes of its group.

        Raises:
            MissingError: it is gone.
            CorruptionError: its arrays are not those that were frozen.
        """
        return require_phi_s(self.store, teacher)

    def stats(self, teacher: str) -> TeacherStats | None:
        """Return a teacher's statistics, or None before they were measured.

        Raises:
            MissingError: an array is not there.
            CorruptionError: an array is damaged.
            ContractError: another version wrote them.
        """
        return read_stats(self.store, teacher)
