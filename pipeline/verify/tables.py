"""Checking tables row by row: every value can be drawn again from the recipe and the image list."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.config import ViewsConfig
from pipeline.inventory.units import Unit
from pipeline.verify.problems import collecting, rows_problem
from pipeline.verify.shard_task import CheckTask
from pipeline.views.crop import draw_crop
from pipeline.views.order import rank_of
from pipeline.views.placements import Placement, place_views, placements_of, placements_table, source_rows
from storage_schemas.format.errors import Problem
from storage_schemas.format.layout import table_part
from storage_schemas.format.tables import PLACEMENTS, REJECTED, VIEWS, from_parquet
from storage_schemas.objects.store import Store

SCHEMAS = {"views": VIEWS, "rejected": REJECTED, "placements": PLACEMENTS}
"""Columns of each table that has a part for each shard."""
ROUNDING = 1e-6
"""Largest difference of a crop's box from the box drawn again (pixels): machines round logarithms differently."""

Row = Mapping[str, Any]


def table_problems(store: Store, task: CheckTask, unit: Unit, rows: int) -> list[Problem]:
    """Check the tables of one shard.

    Args:
        store: the cache.
        task: the shard, and what it must agree with.
        unit: the shard's unit.
        rows: number of views in its commit record.
    """
    problems: list[Problem] = []
    place = table_part("views", unit.view_set.name, task.shard)
    parts = _read_parts(store, task, unit, problems)
    views = parts.get("views")
    if "views" not in dict(unit.tables):
        views = _read(store, "views", place, task.views_fix, problems)
    if views is None:
        return problems
    if views.num_rows != rows:
        found = f"has {views.num_rows} rows, and {unit.name} has {rows} in this shard"
        problems.append(Problem(place=place, found=found, fix=task.views_fix))
    if task.settings is None:
        return problems
    if (rejected := parts.get("rejected")) is not None:
        problems += _view_rows(place, views, rejected, task, unit)
    if (placements := parts.get("placements")) is not None:
        problems += _placement_rows(placements, views, task, unit, task.settings)
    return problems


def _read_parts(store: Store, task: CheckTask, unit: Unit, problems: list[Problem]) -> dict[str, pa.Table | None]:
    """Read the shard's part of each table of the unit, but for missing ones: the check of the record names those."""
    places = {table: table_part(table, folder, task.shard) for table, folder in unit.tables}
    return {
        table: _read(store, table, place, task.fix, problems) for table, place in places.items() if store.exists(place)
    }


def _read(store: Store, table: str, place: str, fix: str, problems: list[Problem]) -> pa.Table | None:
    with collecting(problems, place, fix):
        return from_parquet(store.read(place), SCHEMAS[table], place)
    return None


def _view_rows(place: str, views: pa.Table, rejected: pa.Table, task: CheckTask, unit: Unit) -> Iterator[Problem]:
    """Check a shard's views: their row slots, their images and draws, and their boxes."""
    rows, slots = views.to_pylist(), unit.grid.slots(task.shard)
    misnumbered = [position for position, row in enumerate(rows) if row["row"] != slots.start + position]
    yield from rows_problem(place, misnumbered, "does not have the number of its row slot", task.fix)
    if task.drawn is not None:
        drawn = {(view.image.key, view.draw): view.split for view in task.drawn}
        lost = {(row["image"], row["draw"]) for row in rejected.to_pylist()}
        expected = [{"image": key[0], "draw": key[1], "split": drawn[key]} for key in drawn if key not in lost]
        yield from _different(place, rows, expected, "is not the view that is drawn for it", task.fix)
        if strange := sorted(lost - drawn.keys()):
            rejected_part = table_part("rejected", unit.view_set.name, task.shard)
            found = f"rejects views that are not drawn for this shard: {strange}"
            yield Problem(place=rejected_part, found=found, fix=task.fix)
    if task.settings is not None:
        wrong = [row["row"] for row in rows if not _is_drawn_crop(row, task.settings)]
        yield from rows_problem(place, wrong, "does not hold the box that is drawn for it", task.fix)


def _placement_rows(
    placements: pa.Table, views: pa.Table, task: CheckTask, unit: Unit, settings: ViewsConfig
) -> Iterator[Problem]:
    if unit.teacher is None:
        return
    [(table, folder)] = unit.tables
    place = table_part(table, folder, task.shard)
    shifts, geometry = settings.teacher_shifts, unit.shape.geometry
    drawn = place_views(unit.teacher, settings.seed, shifts, unit.view_set, geometry, views)
    expected = placements_table(drawn).to_pylist()
    if task.exported and unit.teacher.size_rule == "canvas":
        expected = [{name: row[name] for name in ("row", "offset_row", "offset_col")} for row in expected]
        yield from _mosaic_rows(place, placements, views, task, unit, settings)
    found = "is not the placement that is drawn for it"
    yield from _different(place, placements.to_pylist(), expected, found, task.fix)


def _mosaic_rows(
    place: str, placements: pa.Table, views: pa.Table, task: CheckTask, unit: Unit, settings: ViewsConfig
) -> Iterator[Problem]:
    """Check mosaics from another cache: each view is in a cell drawn for it there, and in the order of that cache."""
    if unit.teacher is None:
        return
    listed, geometry = placements_of(placements), unit.shape.geometry
    rows = source_rows(unit.teacher, settings.seed, unit.view_set, geometry, listed)
    wrong = (
        _out_of_order(rows)
        if settings.order == "views"
        else _dealt_otherwise(rows, listed, views.to_pylist(), settings.seed)
    )
    yield from rows_problem(place, wrong, "is not in a cell that is drawn for it", task.fix)


def _out_of_order(rows: Sequence[int | None]) -> list[int]:
    before = [-1, *(-1 if row is None else row for row in rows)]
    return [position for position, row in enumerate(rows) if row is None or row <= before[position]]


def _dealt_otherwise(
    rows: Sequence[int | None], listed: Sequence[Placement], views: Sequence[Row], seed: int
) -> list[int]:
    """Return the views that lay in their mosaic in an order that is never dealt; see `pipeline.views.order`.

    In a mosaic, images lie in their order. Only a later walk, in which no image is met for its first draw, goes back.
    """
    seen, last, wrong = set[int](), dict[int | None, tuple[int, int]](), list[int]()
    ranks = [(rank_of(view["image"], view["split"], seed), view["draw"]) for view in views]
    for position in sorted(range(len(rows)), key=ranks.__getitem__):
        row, mosaic, draw = rows[position], listed[position].mosaic, views[position]["draw"]
        if row is None or row in seen:
            wrong.append(position)
            continue
        before, draw_before = last.get(mosaic, (-1, 0))
        if row < before and draw_before == 0:
            wrong.append(position)
        if row > before:
            last[mosaic] = row, draw
        seen.add(row)
    return sorted(wrong)


def _different(place: str, rows: Sequence[Row], expected: Sequence[Row], found: str, fix: str) -> Iterator[Problem]:
    """Compare rows with those expected, in the columns that these have."""
    if len(rows) != len(expected):
        yield Problem(place=place, found=f"has {len(rows)} rows, expected {len(expected)}", fix=fix)
    pairs = enumerate(zip(rows, expected, strict=False))
    wrong = [position for position, (row, wanted) in pairs if not wanted.items() <= row.items()]
    yield from rows_problem(place, wrong, found, fix)


def _is_drawn_crop(row: Row, settings: ViewsConfig) -> bool:
    crop = draw_crop(row["image_width"], row["image_height"], settings, (settings.seed, row["image"], row["draw"]))
    differences = (abs(row[name] - getattr(crop, name)) for name in ("left", "top", "width", "height"))
    return row["flip"] == crop.flip and all(difference <= ROUNDING for difference in differences)
