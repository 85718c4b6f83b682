"""A plan as plain text: a table of view sets, a table of teachers, totals, and whether the cache fits."""

from collections.abc import Sequence

from pipeline.inventory.units import Unit, total_bytes, total_objects, total_shards
from pipeline.plan.plan import Plan, TeacherPlan
from pipeline.plan.probe_text import probe_lines, processor_of
from pipeline.plan.speed import NOTHING_MEASURED, Speeds, probed_hours
from pipeline.plan.storage import Space, put_requests
from pipeline.text_table import aligned, sized
from pipeline.views.split import split_lines

Row = Sequence[str]


def plan_lines(plan: Plan, tflops: float, speeds: Speeds = NOTHING_MEASURED) -> list[str]:
    """Return a plan's tables.

    Args:
        plan: what is planned.
        tflops: what one GPU sustains, as the user states it (TFLOP/s).
        speeds: what was measured instead, by teacher; empty where nothing was.
    """
    return [
        *aligned(_view_rows(plan)),
        "",
        *aligned(_teacher_rows(plan, tflops, speeds), left=2),
        *probe_lines(plan, speeds),
        "",
        _total(plan),
        *_notes(plan, tflops, speeds),
    ]


def space_line(uri: str, space: Space | None) -> str:
    """Return the line that says whether the planned shards fit where the cache goes."""
    if space is None:
        return f"space: {uri} is not on this machine, so its free space is unknown"
    present = f" ({sized(space.present)} exist already)" if space.present else ""
    verdict = f"does not fit: {sized(space.lacking)} short" if space.lacking else "fits"
    return f"space: {sized(space.needed)} to write{present}, {sized(space.free)} free at {uri}: {verdict}"


def _view_rows(plan: Plan) -> list[Row]:
    head = ("view set", "views", "rows per shard", "shards", "pixels", "objects", "PUTs")
    rows = [_view_row(unit) for unit in plan.canvases]
    shards, objects = total_shards(plan.canvases), total_objects(plan.canvases)
    size, puts = sized(total_bytes(plan.canvases)), put_requests(plan.canvases)
    total = ("all", f"{_views(plan):,}", "", f"{shards:,}", size, f"{objects:,}", f"{puts:,}")
    return [head, *rows, total]


def _view_row(unit: Unit) -> Row:
    grid = unit.grid
    numbers = (f"{number:,}" for number in (grid.views, grid.rows_per_shard, grid.shards))
    objects, puts = total_objects([unit]), put_requests([unit])
    return (unit.view_set.name, *numbers, sized(total_bytes([unit])), f"{objects:,}", f"{puts:,}")


def _teacher_rows(plan: Plan, tflops: float, speeds: Speeds) -> list[Row]:
    head = (
        "teacher",
        "stored as",
        "views",
        "forwards",
        "to calibrate",
        "float16",
        "float32",
        "int8",
        "pca8",
        "detail",
        "shards",
        "objects",
        "PUTs",
        "TFLOP",
        f"{processor_of(speeds)} hours",
    )
    return [head, *(_teacher_row(teacher, tflops, speeds) for teacher in plan.teachers)]


def _teacher_row(teacher: TeacherPlan, tflops: float, speeds: Speeds) -> Row:
    choice = teacher.choice
    return (
        choice.name,
        choice.storage.text,
        f"{sum(unit.grid.views for unit in teacher.features['float16']) // len(teacher.maps):,}",
        f"{teacher.forwards:,}",
        f"{teacher.calibration:,}",
        sized(teacher.bytes("float16")),
        sized(teacher.bytes("float32")),
        sized(teacher.bytes("int8")),
        sized(teacher.bytes("pca8")),
        sized(total_bytes(teacher.details)),
        f"{total_shards(teacher.stored):,}",
        f"{total_objects(teacher.stored):,}",
        f"{put_requests(teacher.stored):,}",
        f"{teacher.tflop:,.4g}",
        f"{_hours(teacher, tflops, speeds):,.3g}",
    )


def _total(plan: Plan) -> str:
    size, objects = total_bytes(plan.units), total_objects(plan.units)
    what = f"{total_shards(plan.units):,} shards, {objects:,} objects, {put_requests(plan.units):,} PUTs on S3"
    return f"total: {sized(size)} ({size:,} bytes) as stored, {what}"


def _notes(plan: Plan, tflops: float, speeds: Speeds) -> list[str]:
    tflop = sum(teacher.tflop for teacher in plan.teachers)
    hours = sum(_hours(teacher, tflops, speeds) for teacher in plan.teachers)
    how = "as measured, one worker" if speeds else f"at a stated {tflops:g} TFLOP/s"
    notes = [
        f"teachers: {tflop:,.4g} TFLOP, {hours:,.3g} {processor_of(speeds)} hours {how}",
        "bytes: of array shards, if no view is rejected; tables, commit records and metadata are not counted",
    ]
    if any(teacher.choice.compression != "none" for teacher in plan.teachers):
        notes.append("compression: not counted; zstd saves a few percent of float16")
    notes.append(
        "int8, pca8: before compression. By fidelity, zstd leaves about 3/4 of int8 (3,024), less than half (100); "
        "of pca8 a quarter to two fifths (100), a tenth to a third (30); `make stats` measures it"
    )
    notes += [f"views: {line}" for line in split_lines(plan.views.split_counts, plan.recipe.views)]
    noise = [teacher.choice.name for teacher in plan.teachers if teacher.maps[0].random_weights]
    return [*notes, f"RANDOM WEIGHTS: {', '.join(noise)}: a demonstration, not teachers"] if noise else notes


def _views(plan: Plan) -> int:
    return sum(unit.grid.views for unit in plan.canvases)


def _hours(teacher: TeacherPlan, tflops: float, speeds: Speeds) -> float:
    if teacher.choice.name in speeds:
        return probed_hours(teacher, speeds[teacher.choice.name]).longest
    return teacher.tflop / tflops / 3600
