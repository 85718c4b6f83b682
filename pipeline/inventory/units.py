"""Units: what commits together, in which arrays and tables, in how many shards."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

from pipeline.config import TeacherChoice
from pipeline.inventory.arrays import detail_spec, pixels_spec, spatial_spec, summary_spec
from storage_schemas.format.feature_storage import FeatureStorage
from storage_schemas.format.layout import ShardGrid, array_object, detail_unit, features_unit, table_part, views_unit
from storage_schemas.format.manifest import ViewSetManifest
from storage_schemas.format.shard_format import CHECKSUM_BYTES, ArraySpec, index_bytes
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What commits together: the canvases of a set, or a teacher's details or features of it. It need not exist yet."""

    name: str
    """Its name, as `storage_schemas.format.layout` gives it."""
    view_set: ViewSet
    shape: ViewSetManifest
    """Canvas and row slots of the set."""
    arrays: tuple[ArraySpec, ...]
    """Its arrays; a task writes one shard of each."""
    tables: tuple[tuple[str, str], ...]
    """Its tables, as name and folder; a task writes one part of each."""
    teacher: TeacherSpec | None = None
    """The teacher of features; None for canvases and details."""
    identity: str = ""
    """Digest in its commit records; empty in a plan."""

    @property
    def grid(self) -> ShardGrid:
        """Its row slots, divided into shards."""
        return self.shape.grid

    def objects(self, shard: int) -> tuple[str, ...]:
        """Return the names of one shard's objects, relative to the cache, without its commit record."""
        arrays = (array_object(spec.path, shard, len(spec.shape)) for spec in self.arrays)
        return (*arrays, *(table_part(table, folder, shard) for table, folder in self.tables))


def canvas_unit(view_set: ViewSet, shape: ViewSetManifest, identity: str = "") -> Unit:
    """Return the unit of a set's canvases, and of the tables that say where each view was cut from."""
    return Unit(
        name=views_unit(view_set),
        view_set=view_set,
        shape=shape,
        arrays=(pixels_spec(view_set, shape),),
        tables=(("views", view_set.name), ("rejected", view_set.name)),
        identity=identity,
    )


def detail_unit_of(view_set: ViewSet, shape: ViewSetManifest, teacher: str, side: int, identity: str = "") -> Unit:
    """Return the unit of a fixed teacher's details of a set: windows with sides of `side` pixels."""
    return Unit(
        name=detail_unit(view_set, teacher),
        view_set=view_set,
        shape=shape,
        arrays=(detail_spec(view_set, shape, teacher, side),),
        tables=(),
        identity=identity,
    )


def feature_unit(
    view_set: ViewSet, shape: ViewSetManifest, spec: TeacherSpec, storage: FeatureStorage, identity: str = ""
) -> Unit:
    """Return the unit of a teacher's features of a set.

    Raises:
        ContractError: this resolution is not a whole number of the teacher's tokens.
    """
    summaries = () if spec.summary_dim is None else (summary_spec(view_set, shape, spec),)
    return Unit(
        name=features_unit(view_set, spec.name),
        view_set=view_set,
        shape=shape,
        arrays=(spatial_spec(view_set, shape, spec, storage), *summaries),
        tables=(("placements", f"{spec.name}/{view_set.name}"),),
        teacher=spec,
        identity=identity,
    )


def choice_of(spec: TeacherSpec, identity: Mapping[str, Any]) -> TeacherChoice:
    """Return the choice by which a teacher's features were computed, from the identity in its manifest.

    How they are stored is not part of it; see `FeatureStorage.of_identity`.
    """
    names = ("precision", "batch")
    stored: dict[str, Any] = {name: identity[name] for name in names} | {"tiles": spec.tiles}
    stored |= {"summary": identity.get("summary", "own"), "size_rule": spec.size_rule}
    if spec.upsampler is not None:
        stored["upsampler"] = spec.upsampler
    return TeacherChoice(name=spec.forward_of, source="", **stored)


def array_bytes(spec: ArraySpec, grid: ShardGrid) -> int:
    """Return the bytes of all shards of an array, before compression, if no view is rejected.

    Each view is a chunk with a checksum, and each shard has an index.
    """
    return grid.views * (spec.entry_bytes + CHECKSUM_BYTES) + grid.shards * index_bytes(spec.rows_per_shard)


def total_bytes(units: Iterable[Unit]) -> int:
    """Return the bytes of all array shards of some units, before compression, if no view is rejected."""
    return sum(array_bytes(spec, unit.grid) for unit in units for spec in unit.arrays)


def total_shards(units: Iterable[Unit]) -> int:
    """Return how many shards some units have. One task writes and commits one shard."""
    return sum(unit.grid.shards for unit in units)


def total_objects(units: Iterable[Unit]) -> int:
    """Return how many objects some units have: array shards, parts of tables, and commit records."""
    return sum(unit.grid.shards * (len(unit.arrays) + len(unit.tables) + 1) for unit in units)
