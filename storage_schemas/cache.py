"""The cache, open for reading: what `trainer` sees of it, and `pipeline` between its stages."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import pyarrow as pa
import xxhash

from storage_schemas.commits import ShardRecord, read_commits
from storage_schemas.format import layout
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, Problem
from storage_schemas.format.groups import parse_group_metadata
from storage_schemas.format.manifest import CacheManifests, TeacherManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS
from storage_schemas.format.shard_format import parse_array_metadata
from storage_schemas.format.stats import ChannelStats, RoundingStats, TeacherStats, shards_of_runs
from storage_schemas.format.tables import PLACEMENTS, REJECTED, VIEWS, from_parquet
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.read_cache import ReadCache
from storage_schemas.sharded_array import ShardedArray
from storage_schemas.small_arrays import read_small_array

PHI_S_ARRAYS = ("mean", "rotation", "scale")
"""Arrays of a teacher's PHI-S, in the order in which they are hashed."""
STATS_ARRAYS = ("mean", "variance", "spectrum", "rounding")
"""Arrays of a teacher's statistics, over all view sets and over each."""
SUMMARY_STATS_ARRAYS = ("dispersion", "mean_direction")
"""Further ones, of a teacher with a summary."""
SET_MERGE_ARRAYS = ("covariance",)
"""What else new shards of a set are merged into."""
SUMMARY_MERGE_ARRAYS = ("summary_sum", "summary_length")
"""What else new summaries are merged into: Σy and Σ|y|, raw teacher units."""
STATS_ATTRIBUTES = frozenset({"identity", "views", "tokens", "sets", "shards", "summarised", "arrays"})
"""What the group of a teacher's statistics says of itself."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A cache of some format version this code reads. It holds nothing open and may be sent to other processes."""

    store: Store
    kept: ReadCache | None = None
    """Where what is read of its arrays is kept on this machine."""

    def require(self) -> str:
        """Return the name of the recipe that made the cache, after checking that there is one of our format.

        Raises:
            MissingError: there is no cache here.
            ContractError: it is of another format version.
            CorruptionError: it names no recipe.
        """
        attributes = self.attributes("")
        if attributes is None:
            fix = "run `make extract` first, or point CACHE at a cache"
            raise MissingError("cache", [Problem(place=self.store.uri, found="holds no features.zarr", fix=fix)])
        if attributes.get("format") != layout.FORMAT_VERSION:
            found = f"is of format {attributes.get('format')}, this version reads {layout.FORMAT_VERSION}"
            raise ContractError("cache", [Problem(place=self.store.uri, found=found, fix="use a matching Stillhouse")])
        if not isinstance(attributes.get("recipe"), str):
            raise CorruptionError("cache", [Problem(place=self.store.uri, found="names no recipe")])
        return attributes["recipe"]

    def attributes(self, group: str) -> dict[str, Any] | None:
        """Return our attribute of a group (`""` for the root), or None when it has none yet.

        The groups above an array are made before they are given their attribute.

        Raises:
            CorruptionError: it is not what was sealed.
        """
        name = "/".join(part for part in (layout.FEATURES, group, "zarr.json") if part)
        try:
            [ours] = self.store.read_parsed([name], _attribute)
        except MissingError:
            return None
        return ours

    def manifests(self, teachers: Iterable[str] = ()) -> CacheManifests:
        """Read the manifests of the views and of some teachers, each object once.

        Args:
            teachers: names of the teachers; those without a manifest are left out.

        Raises:
            MissingError, ContractError, CorruptionError: as `require`.
        """
        recipe, views = self.require(), self.attributes("views")
        read = {name: self.attributes(f"teachers/{name}") for name in teachers}
        return CacheManifests(
            recipe=recipe,
            views=None if views is None else ViewsManifest.from_attributes(views),
            teachers={
                name: TeacherManifest.from_attributes(attributes)
                for name, attributes in read.items()
                if attributes is not None
            },
        )

    def views_manifest(self) -> ViewsManifest | None:
        """Return what `views` says of itself, or None before any view was cut."""
        attributes = self._manifest("views")
        return None if attributes is None else ViewsManifest.from_attributes(attributes)

    def teacher_manifest(self, teacher: str) -> TeacherManifest | None:
        """Return what a teacher's group says of itself, or None when it has none yet."""
        attributes = self._manifest(f"teachers/{teacher}")
        return None if attributes is None else TeacherManifest.from_attributes(attributes)

    def teachers(self) -> list[str]:
        """Return the names of the teachers that the cache has features or a start of them for, sorted."""
        folder = f"{layout.FEATURES}/teachers"
        return [name for name in self.store.children(folder) if self.store.exists(f"{folder}/{name}/zarr.json")]

    def records(self, unit: str, identity: str, shards: Iterable[int] | None = None) -> dict[int, list[ShardRecord]]:
        """Return a unit's commit records by shard number.

        Args:
            unit: see `layout`.
            identity: digest that every record must carry.
            shards: whose records; of every committed shard when None.

        Raises:
            MissingError: a shard that is named has no record.
            ContractError: a record is of another identity.
        """
        commits = read_commits(self.store, unit, shards)
        odd = [shard for shard, records in commits.items() if any(record.identity != identity for record in records)]
        if odd:
            found = f"shards {', '.join(map(str, odd))} were computed from something else than the group says"
            raise ContractError("commit log", [Problem(place=unit, found=found)])
        return commits

    def array(self, path: str, commits: dict[int, list[ShardRecord]]) -> ShardedArray:
        """Open a sharded array over the given commit records."""
        records = {shard: one for shard, parts in commits.items() for one in parts if one.array == path}

        def opened(body: bytes, name: str) -> ShardedArray:
            spec = parse_array_metadata(path, _metadata(body, name))
            return ShardedArray(store=self.store, spec=spec, records=records, kept=self.kept)

        [array] = self.store.read_parsed([f"{layout.FEATURES}/{path}/zarr.json"], opened)
        return array

    def views(self, view_set: ViewSet, commits: dict[int, list[ShardRecord]]) -> pa.Table:
        """Return the `views` table of a set, over its committed shards, in order of row."""
        return self._table("views", view_set.name, VIEWS, commits)

    def rejected(self, view_set: ViewSet, commits: dict[int, list[ShardRecord]]) -> pa.Table:
        """Return the `rejected` table of a set, over its committed shards, shard by shard."""
        return self._table("rejected", view_set.name, REJECTED, commits)

    def placements(self, view_set: ViewSet, teacher: str, commits: dict[int, list[ShardRecord]]) -> pa.Table:
        """Return the `placements` table of a teacher and a set, over the committed shards, in order of row."""
        return self._table("placements", f"{teacher}/{view_set.name}", PLACEMENTS, commits)

    def phi_s(self, teacher: str) -> PhiS | None:
        """Return a teacher's frozen PHI-S map, or None before it was fitted.

        Raises:
            CorruptionError: its arrays are not those that were frozen.
        """
        attributes = self.attributes(f"teachers/{teacher}/phi_s")
        return None if attributes is None else self.phi_s_of(teacher, attributes)

    def phi_s_of(self, teacher: str, attributes: Mapping[str, Any]) -> PhiS:
        """Return a teacher's frozen PHI-S map, given the attributes of its group.

        Raises:
            CorruptionError: its arrays are not those that were frozen.
        """
        group = f"teachers/{teacher}/phi_s"
        mean, rotation, scale = self._small_arrays(group, PHI_S_ARRAYS)
        phi_s = PhiS(mean=mean, rotation=rotation, scale=float(scale))
        if phi_s_digest(phi_s) != attributes.get("sha256"):
            raise CorruptionError("PHI-S", [Problem(place=group, found="its arrays are not those that were frozen")])
        return phi_s

    def require_phi_s(self, teacher: str) -> tuple[PhiS, dict[str, Any]]:
        """Return the PHI-S map that a teacher's features were stored under, and the attributes of its group.

        Raises:
            MissingError: it is gone.
            CorruptionError: its arrays are not those that were frozen.
        """
        attributes = self.attributes(f"teachers/{teacher}/phi_s")
        if attributes is None:
            found = "is gone, and features were stored under it"
            fix = "put it back from a copy of the cache, or make a new cache"
            raise MissingError("PHI-S", [Problem(place=f"teachers/{teacher}/phi_s", found=found, fix=fix)])
        return self.phi_s_of(teacher, attributes), attributes

    def stats(self, teacher: str) -> TeacherStats | None:
        """Return a teacher's statistics, or None before they were measured.

        Raises:
            CorruptionError: an array fails its checksum, or was never written.
            ContractError: they were written by another version.
        """
        group = f"teachers/{teacher}/stats"
        attributes = self.attributes(group)
        if attributes is None:
            return None
        if odd := attributes.keys() ^ STATS_ATTRIBUTES:
            found = f"fields that this version does not share: {', '.join(sorted(odd))}"
            raise ContractError("statistics", [Problem(place=group, found=found)])
        told = attributes["arrays"]
        sets = {
            ViewSet.parse(name): self._channels(group, f"{name}/", count, told)
            for name, count in attributes["sets"].items()
        }
        dispersion, direction = None, None
        if attributes["summarised"]:
            dispersion, direction = self._small_arrays(group, SUMMARY_STATS_ARRAYS, told)
        return TeacherStats(
            identity=attributes["identity"],
            views=attributes["views"],
            shards={ViewSet.parse(name): shards_of_runs(runs, group) for name, runs in attributes["shards"].items()},
            pooled=self._channels(group, "", attributes["tokens"], told),
            sets=sets,
            dispersion=None if dispersion is None else float(dispersion),
            mean_direction=direction,
            arrays=told,
        )

    def _manifest(self, group: str) -> dict[str, Any] | None:
        attributes = self.attributes(group)
        if attributes is not None:
            self.require()
        return attributes

    def _channels(self, group: str, prefix: str, tokens: int, told: Mapping[str, str]) -> ChannelStats:
        names = [f"{prefix}{name}" for name in STATS_ARRAYS]
        mean, variance, spectrum, rounding = self._small_arrays(group, names, told)
        costs = RoundingStats.from_array(rounding, f"{group}/{prefix}rounding")
        return ChannelStats(tokens=tokens, mean=mean, variance=variance, spectrum=spectrum, rounding=costs)

    def _small_arrays(
        self, group: str, names: Sequence[str], told: Mapping[str, str] | None = None
    ) -> list[np.ndarray]:
        """Read arrays of a group; their SHA-256 are those that it tells, where it does."""
        if told is not None and (untold := [name for name in names if name not in told]):
            found = f"does not tell the SHA-256 of {', '.join(untold)}"
            fix = "delete it, and run `make stats` again"
            raise ContractError("statistics", [Problem(place=group, found=found, fix=fix)])
        wanted = [None if told is None else told[name] for name in names]
        return [
            self.store.checked(partial(read_small_array, self.store, f"{group}/{name}", sha256))
            for name, sha256 in zip(names, wanted, strict=True)
        ]

    def _table(self, table: str, where: str, schema: pa.Schema, commits: dict[int, list[ShardRecord]]) -> pa.Table:
        shards = {layout.table_part(table, where, shard): shard for shard in sorted(commits)}

        def parsed(body: bytes, name: str) -> pa.Table:
            _require_committed(name, body, commits[shards[name]])
            return from_parquet(body, schema, name)

        return pa.concat_tables([schema.empty_table(), *self.store.read_parsed(list(shards), parsed)])


def phi_s_digest(phi_s: PhiS) -> str:
    """Return the SHA-256 (hexadecimal) of a PHI-S map's float64 bytes: mean, rotation, scale."""
    parts = (phi_s.mean, phi_s.rotation, np.float64(phi_s.scale))
    return hashlib.sha256(b"".join(np.asarray(part, dtype="<f8").tobytes() for part in parts)).hexdigest()


def _attribute(body: bytes, name: str) -> dict[str, Any] | None:
    return parse_group_metadata(_metadata(body, name), name)


def _metadata(body: bytes, name: str) -> dict[str, Any]:
    try:
        metadata = json.loads(body)
    except ValueError as error:
        raise CorruptionError("metadata", [Problem(place=name, found=f"is not JSON: {error}")]) from error
    if not isinstance(metadata, dict):
        raise CorruptionError("metadata", [Problem(place=name, found="is no JSON object")])
    return metadata


def _require_committed(name: str, body: bytes, records: Sequence[ShardRecord]) -> None:
    committed = [record.xxh3 for record in records if record.path == name]
    if committed != [xxhash.xxh3_128(body).hexdigest()]:
        found = "its XXH3 is not the one that its shard was committed with"
        raise CorruptionError("table", [Problem(place=name, found=found)])
