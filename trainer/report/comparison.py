"""All runs of a cache side by side: a table with the best of each column, and their curves in one plot per measure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from trainer.report.curves import own_points, points_of, resolution_points, score_points, task_names, task_points
from trainer.report.numbers_as_text import NONE, count_text, duration_text, number_text
from trainer.report.plots import Axis, Line, Plot, Points, make_plot, spaced_ticks
from trainer.report.results import RunResult
from trainer.report.run_list import RunFacts, run_facts

COLOURS = 8
"""Colours of runs; from the ninth run on, lines are dashed and the colours repeat."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value of the table."""

    text: str
    best: bool = False
    """Whether it is the best of its column."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run of the table."""

    facts: RunFacts
    number: int
    """Its number, which gives its colour."""
    cells: tuple[Cell, ...]
    """In the order of the columns."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the table."""

    title: str
    note: str
    """Unit, or what the value is; empty for none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All runs of a cache."""

    columns: tuple[Column, ...]
    rows: tuple[RunRow, ...]
    plots: tuple[Plot, ...]
    """None for a single run, whose own section shows its curves."""


def compare(results: Sequence[RunResult], teachers: Sequence[str]) -> Comparison:
    """Return the comparison of runs.

    Args:
        results: the runs, in order of name.
        teachers: the teachers of the cache.
    """
    facts = [run_facts(result) for result in results]
    columns: list[Column] = []
    texts: list[list[Cell]] = []
    for column, values, text, best in _columns(results, facts, teachers):
        columns.append(column)
        texts.append(_cells(values, text, best))
    rows = tuple(
        RunRow(facts=run, number=number, cells=cells)
        for number, (run, cells) in enumerate(zip(facts, zip(*texts, strict=True), strict=True))
    )
    plots = tuple(_plots(results, teachers)) if len(results) > 1 else ()
    return Comparison(columns=tuple(columns), rows=rows, plots=plots)


_ColumnOf = tuple[Column, list[float | None], Callable[[float], str], Callable[..., float] | None]


def _columns(results: Sequence[RunResult], facts: Sequence[RunFacts], teachers: Sequence[str]) -> list[_ColumnOf]:
    """Return each column: its title, the value of each run, how it is written, and which value is the best."""
    speeds = [None if result.speed is None else result.speed["views_per_second"] for result in results]
    scales = [result.evaluations[-1]["student"]["scale"] if result.evaluations else None for result in results]
    return [
        (Column(title="F, mean", note="best evaluation"), [run.fidelity for run in facts], number_text, max),
        *(
            (
                Column(title=f"F, {name}", note="last evaluation"),
                [run.last.get(name) for run in facts],
                number_text,
                max,
            )
            for name in teachers
        ),
        (Column(title="Scale variance", note="last"), scales, number_text, min),
        (Column(title="Views/s", note=""), speeds, lambda value: number_text(value, 1), max),
        (Column(title="Wall time", note=""), [run.seconds for run in facts], duration_text, min),
        (Column(title="Parameters", note="of the backbone"), [run.parameters for run in facts], count_text, None),
        (Column(title="Learning rate", note="highest"), [run.lr for run in facts], lambda value: f"{value:g}", None),
    ]


def _cells(
    values: Sequence[float | None], text: Callable[[float], str], best: Callable[..., float] | None
) -> list[Cell]:
    known = [value for value in values if value is not None]
    # a column in which all are alike has no best
    top = best(known) if best and len(set(known)) > 1 else None
    return [
        Cell(text=NONE) if value is None else Cell(text=text(value), best=top is not None and value == top)
        for value in values
    ]


def _plots(results: Sequence[RunResult], teachers: Sequence[str]) -> list[Plot]:
    def lines(points: Callable[[RunResult], Points]) -> list[Line]:
        found = [(number, result, points(result)) for number, result in enumerate(results)]
        return [
            Line(label=result.name, colour=number % COLOURS, dashed=number // COLOURS % 2 == 1, points=drawn)
            for number, result, drawn in found
            if drawn
        ]

    plots = _some("Loss", "weighted sum", lines(lambda result: points_of(result.history, "loss")), log=True)
    for name in teachers:
        plots += _some(f"Fidelity to {name}", "F", lines(_of(name, score_points, "fidelity")), reference=1.0)
        plots += _by_resolution(name, lines(partial(_resolutions, name)))
    for name in teachers:
        angle = lines(_of(name, score_points, "angle"))
        plots += _some(f"Summary angle to {name}", "angle² / dispersion", angle, reference=1.0, log=True)
    for name in task_names(results):
        title = f"{name.replace('/', ' on ')} during training"
        plots += _some(title, "accuracy", lines(partial(_of_task, name)))
    plots += _some("Scale variance", "σ², 0 is perfect", lines(lambda result: own_points(result, "scale")))
    plots += _some("Effective rank", "directions", lines(lambda result: own_points(result, "effective_rank")))
    return plots + _some("Speed", "views/s", lines(lambda result: points_of(result.history, "views_per_second")))


def _of(teacher: str, points: Callable[[RunResult, str, str], Points], kind: str) -> Callable[[RunResult], Points]:
    return lambda result: points(result, teacher, kind) if teacher in result.teachers else []


def _resolutions(teacher: str, result: RunResult) -> Points:
    return resolution_points(result, teacher) if teacher in result.teachers else []


def _of_task(name: str, result: RunResult) -> Points:
    return task_points(result, name)


def _by_resolution(teacher: str, lines: Sequence[Line]) -> list[Plot]:
    sizes = sorted({size for line in lines for size, _ in line.points})
    if len(sizes) < 2:
        return []
    x = Axis(low=sizes[0], high=sizes[-1], ticks=spaced_ticks(sizes))
    return [make_plot(f"Fidelity to {teacher} by resolution", "F, last", lines, reference=1.0, over="px", x=x)]


def _some(title: str, unit: str, lines: Sequence[Line], **settings: bool | float) -> list[Plot]:
    return [make_plot(title, unit, lines, **settings)] if lines else []  # type: ignore[arg-type]
