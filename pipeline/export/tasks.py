"""The tasks of an export: one for each shard of the target that is not committed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import pyarrow as pa

from pipeline.export.pairs import UnitPair
from pipeline.export.selection import ExportedViews
from pipeline.export.worker import ExportTask, take_rows
from pipeline.views.order import DrawnView
from storage_schemas.cache import Cache
from storage_schemas.commits import committed_shards
from storage_schemas.format.errors import CorruptionError, Problem
from storage_schemas.format.layout import views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.views import ViewSet

ViewKey = tuple[str, int]
"""Key of an image, and number of the draw."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardContents:
    """The views of one shard of a set of the target."""

    rows: tuple[int, ...]
    """Their row slots in the source, in order."""
    tables: Mapping[str, pa.Table]
    """The shard's parts of `views` and of `rejected`."""


def missing_tasks(
    source: Cache, views: ViewsManifest, target: Cache, exported: ExportedViews, pairs: Sequence[UnitPair]
) -> Iterator[ExportTask]:
    """Yield a task for every shard of the target that is not committed.

    Args:
        source: the cache that is exported.
        views: manifest of its views.
        target: where the export goes.
        exported: its views.
        pairs: its units.
    """
    for view_set, shape in exported.manifest.sets.items():
        contents: list[ShardContents] = []
        for pair in (pair for pair in pairs if pair.target.view_set == view_set):
            lacking = shape.grid.missing(committed_shards(target.store, pair.target.name))
            if lacking and not contents:
                contents = list(shard_contents(source, views, exported, view_set))
            for shard in lacking:
                content = contents[shard]
                tables = {name: content.tables[name] for name, _ in pair.target.tables if name in content.tables}
                yield ExportTask(source=pair.source, target=pair.target, shard=shard, rows=content.rows, tables=tables)


def shard_contents(
    source: Cache, views: ViewsManifest, exported: ExportedViews, view_set: ViewSet
) -> Iterator[ShardContents]:
    """Yield the contents of each shard of a set: of the views drawn for it, those that were cut, and those rejected.

    Args:
        source: the cache that is exported.
        views: manifest of its views.
        exported: the views of the export.
        view_set: the set.

    Raises:
        CorruptionError: a view that is drawn was neither cut nor rejected.
    """
    commits = source.records(views_unit(view_set), views.digest)
    table, rejected = source.views(view_set, commits), source.rejected(view_set, commits)
    table, rows = table.combine_chunks(), table["row"].to_pylist()
    cut = {key: position for position, key in enumerate(_keys(table))}
    lost = {key: position for position, key in enumerate(_keys(rejected))}
    drawn = [view for added in exported.drawn[view_set] for view in added]
    grid, recorded = exported.manifest.sets[view_set].grid, cut.keys() | lost.keys()
    for shard in range(grid.shards):
        of_shard = drawn[grid.drawn(shard).start : grid.drawn(shard).stop]
        _require_recorded(of_shard, recorded, view_set)
        keys = [_key(view) for view in of_shard]
        positions = [cut[key] for key in keys if key in cut]
        rejections = [lost[key] for key in keys if key not in cut]
        parts = {
            "views": take_rows(table, positions, grid.slots(shard).start),
            "rejected": rejected.take(pa.array(rejections, pa.int64())).combine_chunks(),
        }
        yield ShardContents(rows=tuple(rows[position] for position in positions), tables=parts)


def _key(view: DrawnView) -> ViewKey:
    return view.image.key, view.draw


def _keys(table: pa.Table) -> list[ViewKey]:
    return list(zip(table["image"].to_pylist(), table["draw"].to_pylist(), strict=True))


def _require_recorded(views: Sequence[DrawnView], recorded: Collection[ViewKey], view_set: ViewSet) -> None:
    if unrecorded := [view for view in views if _key(view) not in recorded]:
        view = unrecorded[0]
        found = f"draw {view.draw} of {view.image.key} is drawn for {view_set.name}, but neither cut nor rejected"
        raise CorruptionError("views", [Problem(place=views_unit(view_set), found=found, fix="run `make verify`")])
