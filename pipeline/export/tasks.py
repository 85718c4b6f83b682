"""What is still to be exported: one task for each shard of the target that is not committed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import pyarrow as pa

from pipeline.export.selection import ExportedViews
from pipeline.export.worker import ExportTask, renumbered
from pipeline.inventory.units import Unit
from pipeline.views.sampling import DrawnView
from storage_schemas.cache import Cache
from storage_schemas.commits import committed_shards
from storage_schemas.format.errors import CorruptionError, MissingError, Problem
from storage_schemas.format.layout import views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPair:
    """A unit of the target, and the one of the source that it is taken of."""

    source: Unit
    target: Unit


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardContents:
    """What one shard of a set of the target holds."""

    rows: tuple[int, ...]
    """Row slots of its views in the source, in order."""
    tables: Mapping[str, pa.Table]
    """Its parts of `views` and of `rejected`."""


def require_complete(source: Cache, pairs: Sequence[UnitPair], fixes: Mapping[str, str]) -> None:
    """Refuse to export what is not all there: what is there in an hour would be another export.

    Args:
        source: the cache.
        pairs: what is wanted of it.
        fixes: by unit of the source, what completes it.

    Raises:
        MissingError: shards are not committed; every such unit is named.
        ContractError: shards are of something else than their group says.
    """
    problems = []
    for unit in (pair.source for pair in pairs):
        if lacking := unit.grid.missing(source.records(unit.name, unit.identity)):
            found = f"{len(lacking)} of {unit.grid.shards} shards are not committed"
            problems.append(Problem(place=unit.name, found=found, fix=fixes[unit.name]))
    if problems:
        raise MissingError("export", problems)


def missing_tasks(
    source: Cache, views: ViewsManifest, target: Cache, exported: ExportedViews, pairs: Sequence[UnitPair]
) -> Iterator[ExportTask]:
    """Yield a task for every shard of the target that is not committed.

    Args:
        source: where the views are taken from.
        views: what it says of them.
        target: where they go.
        exported: which they are.
        pairs: units to be written.
    """
    for view_set, shape in exported.manifest.sets.items():
        contents: list[ShardContents] = []
        for pair in (pair for pair in pairs if pair.target.view_set == view_set):
            lacking = shape.grid.missing(committed_shards(target.store, pair.target.name))
            if lacking and not contents:
                contents = list(shard_contents(source, views, exported, view_set))
            for shard in lacking:
                one = contents[shard]
                tables = {name: one.tables[name] for name, _ in pair.target.tables if name in one.tables}
                yield ExportTask(source=pair.source, target=pair.target, shard=shard, rows=one.rows, tables=tables)


def shard_contents(
    source: Cache, views: ViewsManifest, exported: ExportedViews, view_set: ViewSet
) -> Iterator[ShardContents]:
    """Yield what each shard of a set holds: the views drawn for it, those that were rejected among them."""
    commits = source.records(views_unit(view_set), views.digest)
    table, rejected = source.views(view_set, commits), source.rejected(view_set, commits)
    table, rows = table.combine_chunks(), table["row"].to_pylist()
    cut = {key: position for position, key in enumerate(_keys(table))}
    gone = {key: position for position, key in enumerate(_keys(rejected))}
    drawn = [view for added in exported.drawn[view_set] for view in added]
    grid, met = exported.manifest.sets[view_set].grid, cut.keys() | gone.keys()
    for shard in range(grid.shards):
        given = drawn[grid.drawn(shard).start : grid.drawn(shard).stop]
        _require_met(given, met, view_set)
        taken = [cut[key] for key in map(_key, given) if key in cut]
        lost = [gone[key] for key in map(_key, given) if key not in cut]
        parts = {
            "views": renumbered(table, taken, grid.slots(shard).start),
            "rejected": rejected.take(pa.array(lost, pa.int64())).combine_chunks(),
        }
        yield ShardContents(rows=tuple(rows[position] for position in taken), tables=parts)


def _key(view: DrawnView) -> tuple[str, int]:
    return view.image.key, view.draw


def _keys(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(table["image"].to_pylist(), table["draw"].to_pylist(), strict=True))


def _require_met(given: Sequence[DrawnView], met: Collection[tuple[str, int]], view_set: ViewSet) -> None:
    lost = [view for view in given if _key(view) not in met]
    if lost:
        found = f"draw {lost[0].draw} of {lost[0].image.key} is drawn for {view_set.name}, and neither cut nor rejected"
        raise CorruptionError("views", [Problem(place=views_unit(view_set), found=found, fix="see `make verify`")])
