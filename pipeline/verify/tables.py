"""Checking tables row by row: all that stands in them can be drawn again from the recipe and the image list."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.config import ViewsConfig
from pipeline.inventory.units import Unit
from pipeline.verify.findings import noting, rows_problem
from pipeline.verify.task import CheckTask
from pipeline.views.crop import draw_crop
from pipeline.views.placements import place_views, placements_of, placements_table, source_rows
from storage_schemas.format.errors import Problem
from storage_schemas.format.layout import table_part
from storage_schemas.format.tables import PLACEMENTS, REJECTED, VIEWS, from_parquet
from storage_schemas.objects.store import Store

SCHEMAS = {"views": VIEWS, "rejected": REJECTED, "placements": PLACEMENTS}
"""Columns of each table that has a part for each shard."""
ROUNDING = 1e-6
"""How far a crop's box may be from the one drawn again (pixels): machines round logarithms differently."""

Row = Mapping[str, Any]


def table_problems(store: Store, task: CheckTask, unit: Unit, rows: int) -> list[Problem]:
    """Check the tables of one shard, and that it holds its views.

    Args:
        store: the cache.
        task: what is known of the shard.
        unit: the shard's.
        rows: views that its record says it has.
    """
    problems: list[Problem] = []
    place = table_part("views", unit.view_set.name, task.shard)
    parts = {
        table: _read(store, table, table_part(table, folder, task.shard), task.fix, problems)
        for table, folder in unit.tables
        if store.exists(table_part(table, folder, task.shard))  # what a record names and is not there is named already
    }
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


def _read(store: Store, table: str, place: str, fix: str, problems: list[Problem]) -> pa.Table | None:
    with noting(problems, place, fix):
        return from_parquet(store.read(place), SCHEMAS[table], place)
    return None


def _view_rows(place: str, views: pa.Table, rejected: pa.Table, task: CheckTask, unit: Unit) -> Iterator[Problem]:
    """Check a shard's views: their numbers, which they are, and the boxes that they were cut from."""
    rows, slots = views.to_pylist(), unit.grid.slots(task.shard)
    misnumbered = [position for position, row in enumerate(rows) if row["row"] != slots.start + position]
    yield from rows_problem(place, misnumbered, "is not numbered as the row slot that it fills", task.fix)
    if task.drawn is not None:
        drawn = {(view.image.key, view.draw): view.split for view in task.drawn}
        gone = {(row["image"], row["draw"]) for row in rejected.to_pylist()}
        expected = [{"image": key[0], "draw": key[1], "split": drawn[key]} for key in drawn if key not in gone]
        yield from _unlike(place, rows, expected, "is not the view that is drawn for it", task.fix)
        if strange := sorted(gone - drawn.keys()):
            named = table_part("rejected", unit.view_set.name, task.shard)
            yield Problem(place=named, found=f"rejects views that are not drawn for it: {strange}", fix=task.fix)
    if task.settings is not None:
        odd = [row["row"] for row in rows if not _is_drawn_crop(row, task.settings)]
        yield from rows_problem(place, odd, "does not hold the box that is drawn for it", task.fix)


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
        expected = [{name: one[name] for name in ("row", "offset_row", "offset_col")} for one in expected]
        yield from _mosaic_rows(place, placements, task, unit, settings)
    yield from _unlike(place, placements.to_pylist(), expected, "is not the placement that is drawn for it", task.fix)


def _mosaic_rows(
    place: str, placements: pa.Table, task: CheckTask, unit: Unit, settings: ViewsConfig
) -> Iterator[Problem]:
    """Check mosaics that come from another cache: cells that they have, and views in the order in which they were."""
    if unit.teacher is None:
        return
    listed, geometry = placements_of(placements), unit.shape.geometry
    rows = source_rows(unit.teacher, settings.seed, unit.view_set, geometry, listed)
    before = [-1, *(-1 if row is None else row for row in rows)]
    odd = [position for position, row in enumerate(rows) if row is None or row <= before[position]]
    yield from rows_problem(place, odd, "is not in a cell that is drawn for it", task.fix)


def _unlike(place: str, rows: Sequence[Row], expected: Sequence[Row], found: str, fix: str) -> Iterator[Problem]:
    if len(rows) != len(expected):
        yield Problem(place=place, found=f"has {len(rows)} rows, expected {len(expected)}", fix=fix)
    pairs = enumerate(zip(rows, expected, strict=False))
    unlike = [position for position, (row, like) in pairs if not like.items() <= row.items()]
    yield from rows_problem(place, unlike, found, fix)


def _is_drawn_crop(row: Row, settings: ViewsConfig) -> bool:
    crop = draw_crop(row["image_width"], row["image_height"], settings, (settings.seed, row["image"], row["draw"]))
    apart = (abs(row[name] - getattr(crop, name)) for name in ("left", "top", "width", "height"))
    return row["flip"] == crop.flip and all(distance <= ROUNDING for distance in apart)
