"""A plan as plain text: a table of view sets, a table of teachers, totals, and whether it fits."""

from collections.abc import Sequence

from pipeline.free_space import Space
from pipeline.plan import Plan
from pipeline.plan_teacher import TeacherPlan
from pipeline.text_table import aligned, sized
from pipeline.units import Unit, total_bytes, total_objects, total_shards

Row = Sequence[str]


def plan_lines(plan: Plan, tflops: float) -> list[str]:
    """Return a plan's tables.

    Args:
        plan: what is planned.
        tflops: what the GPU sustains (TFLOP/s).
    """
    return [
        *aligned(_view_rows(plan)),
        "",
        *aligned(_teacher_rows(plan, tflops), left=2),
        "",
        _total(plan),
        *_notes(plan, tflops),
    ]


def space_line(uri: str, space: Space | None) -> str:
    """Say whether what is planned fits where the cache is to be."""
    if space is None:
        return f"space: {uri} is not on this machine; how much is free there is not known"
    present = f" ({sized(space.present)} are there)" if space.present else ""
    verdict = f"does not fit: {sized(space.lacking)} short" if space.lacking else "fits"
    return f"space: {sized(space.needed)} to write{present}, {sized(space.free)} free at {uri}: {verdict}"


def _view_rows(plan: Plan) -> list[Row]:
    head = ("view set", "views", "rows per shard", "shards", "pixels", "objects")
    rows = [_view_row(unit) for unit in plan.canvases]
    shards, objects = total_shards(plan.canvases), total_objects(plan.canvases)
    total = ("all", f"{_views(plan):,}", "", f"{shards:,}", sized(total_bytes(plan.canvases)), f"{objects:,}")
    return [head, *rows, total]


def _view_row(unit: Unit) -> Row:
    grid = unit.grid
    numbers = (f"{number:,}" for number in (grid.views, grid.rows_per_shard, grid.shards))
    return (unit.view_set.name, *numbers, sized(total_bytes([unit])), f"{total_objects([unit]):,}")


def _teacher_rows(plan: Plan, tflops: float) -> list[Row]:
    head = (
        "teacher",
        "stored as",
        "views",
        "forwards",
        "to calibrate",
        "float16",
        "float32",
        "int8",
        "detail",
        "shards",
        "objects",
        "TFLOP",
        "GPU hours",
    )
    return [head, *(_teacher_row(one, tflops) for one in plan.teachers)]


def _teacher_row(teacher: TeacherPlan, tflops: float) -> Row:
    choice = teacher.choice
    return (
        choice.name,
        choice.encoding if choice.compression == "none" else f"{choice.encoding}, {choice.compression}",
        f"{sum(unit.grid.views for unit in teacher.features['float16']) // len(teacher.maps):,}",
        f"{teacher.forwards:,}",
        f"{teacher.calibration:,}",
        sized(teacher.bytes("float16")),
        sized(teacher.bytes("float32")),
        sized(teacher.bytes("int8")),
        sized(total_bytes(teacher.details)),
        f"{total_shards(teacher.stored):,}",
        f"{total_objects(teacher.stored):,}",
        f"{teacher.tflop:,.4g}",
        _hours(teacher.tflop, tflops),
    )


def _total(plan: Plan) -> str:
    size, objects = total_bytes(plan.units), total_objects(plan.units)
    return f"total: {sized(size)} ({size:,} bytes) as stored, {total_shards(plan.units):,} shards, {objects:,} objects"


def _notes(plan: Plan, tflops: float) -> list[str]:
    tflop = sum(teacher.tflop for teacher in plan.teachers)
    notes = [
        f"teachers: {tflop:,.4g} TFLOP, {_hours(tflop, tflops)} GPU hours at a stated {tflops:g} TFLOP/s",
        "bytes: array shards, if no view is rejected; tables, commit records and metadata come on top",
    ]
    if any(teacher.choice.compression != "none" for teacher in plan.teachers):
        notes.append("compression: not counted; zstd gains a few percent on float16")
    noise = [teacher.choice.name for teacher in plan.teachers if teacher.maps[0].random_weights]
    return [*notes, f"RANDOM WEIGHTS: {', '.join(noise)}: a demonstration, not teachers"] if noise else notes


def _views(plan: Plan) -> int:
    return sum(unit.grid.views for unit in plan.canvases)


def _hours(tflop: float, tflops: float) -> str:
    return f"{tflop / tflops / 3600:,.3g}"
