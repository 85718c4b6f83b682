"""Scores of `evaluate` side by side: a table of runs and teachers, and the main score of each task over resolutions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.views import ViewSet
from trainer.downstream.options import BACKBONE
from trainer.downstream.results import RESULTS, Score, scores_in
from trainer.downstream.score_table import Column, ScoreRow, columns_of, score_rows
from trainer.report.comparison import COLOURS, Cell
from trainer.report.numbers_as_text import NONE, number_text
from trainer.report.plots import Axis, Line, Plot, Points, make_plot, spaced_ticks


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One run, or one teacher, with everything that was measured of it."""

    name: str
    trained: bool
    """Whether it is a run of the page; else it was found in the folder of evaluations."""
    scores: Sequence[Score]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskColumns:
    """The columns of one task with the same settings, one for each view set."""

    title: str
    """The task, with those settings in which the scores of the page differ."""
    score: str
    """Name of its main score, and whether the lowest is the best."""
    sets: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """The main scores of one output of a run or a teacher."""

    name: str
    output: str
    trained: bool
    number: int
    """Number of its colour. The backbone of a run has the run's."""
    cells: tuple[tuple[Cell, ...], ...]
    """For each task, in the order of its columns."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationScores:
    """What was measured of runs and teachers."""

    tasks: tuple[TaskColumns, ...]
    rows: tuple[EvaluationRow, ...]
    plots: tuple[Plot, ...]
    """None for tasks that were measured at one resolution only."""


_Output = tuple[str, str]
"""Key of a run or a teacher, and its output."""


def evaluated_teachers(folder: Path, runs: Iterable[Path]) -> list[Evaluated]:
    """Return what a folder of evaluations holds, in order of name.

    Args:
        folder: a folder with an `evaluation.json` in each subfolder, or with one of its own.
        runs: folders of the page's runs, which are left out.

    Raises:
        SettingError: the folder holds no scores.
        ContractError: another version wrote a file.
        CorruptionError: a file is not JSON.
    """
    files = [path for path in (folder / RESULTS, *sorted(folder.glob(f"*/{RESULTS}"))) if path.exists()]
    if not files:
        fix = "`make evaluate TEACHER=…` makes one for a teacher"
        problem = Problem(place=str(folder), found=f"holds no folder with {RESULTS}", fix=fix)
        raise SettingError("evaluations", [problem])
    own = {run.resolve() for run in runs}
    folders = [path.parent for path in files if path.parent.resolve() not in own]
    # `.` has no name of its own
    named = [(path.name or path.resolve().name, path) for path in folders]
    return [Evaluated(name=name, trained=False, scores=scores_in(path / RESULTS)) for name, path in named]


def evaluation_scores(runs: Sequence[Evaluated], teachers: Sequence[Evaluated]) -> EvaluationScores | None:
    """Return the table and the plots, or None where nothing was measured.

    Scores are compared where task, settings and views are the same, by the main score of the task: its first one.

    Args:
        runs: all runs of the page, in their order; some may have no score.
        teachers: what else was measured.
    """
    # keys that sort in the order of the page, and that a run and a teacher of the same name do not share
    found = {f"{number:06d}": evaluated for number, evaluated in enumerate([*runs, *teachers])}
    rows = score_rows({key: [_main(score) for score in of.scores] for key, of in found.items()})
    if not rows:
        return None
    by_task: dict[tuple[str, str], dict[_Output, ScoreRow]] = {}
    for row in rows:
        by_task.setdefault((row.task, row.score), {})[row.run, row.output] = row
    outputs = sorted({(row.run, row.output) for row in rows}, key=lambda output: (output[0], _order(output[1])))
    numbers = _numbers(outputs, len(runs))
    columns = {task: columns_of(of_task.values()) for task, of_task in by_task.items()}
    table = [
        EvaluationRow(
            name=found[output[0]].name,
            output=output[1],
            trained=found[output[0]].trained,
            number=numbers[output],
            cells=tuple(
                tuple(_cell(of_task, output, column) for column in columns[task]) for task, of_task in by_task.items()
            ),
        )
        for output in outputs
    ]
    shown = dict(zip(outputs, table, strict=True))
    groups = _comparable_views(score for evaluated in found.values() for score in evaluated.scores)
    plots = [plot for of_task in by_task.values() for plot in _plots(of_task, shown, groups)]
    tasks = [
        TaskColumns(title=task, score=_score_text(next(iter(by_task[task, score].values()))), sets=tuple(sets.values()))
        for (task, score), sets in columns.items()
    ]
    return EvaluationScores(tasks=tuple(tasks), rows=tuple(table), plots=tuple(plots))


def _main(score: Score) -> Score:
    return replace(score, scores=dict(list(score.scores.items())[:1]))


def _order(output: str) -> tuple[bool, str]:
    return output != BACKBONE, output


def _numbers(outputs: Sequence[_Output], runs: int) -> dict[_Output, int]:
    """Return the number of each row: a run's backbone has the run's; other rows come after the numbers of all runs."""
    own = {output: int(output[0]) for output in outputs if output[1] == BACKBONE and int(output[0]) < runs}
    others = [output for output in outputs if output not in own]
    return own | {output: runs + place for place, output in enumerate(others)}


def _cell(of_task: Mapping[_Output, ScoreRow], output: _Output, column: Column) -> Cell:
    row = of_task.get(output)
    if row is None or column not in row.values:
        return Cell(text=NONE)
    return Cell(text=number_text(row.values[column]), best=column in row.best)


def _score_text(row: ScoreRow) -> str:
    return f"{row.score}, lower is better" if row.lower_is_better else row.score


def _comparable_views(scores: Iterable[Score]) -> dict[str, set[Column]]:
    """Return the views of each cache, by its URI: caches that have views in common count as one that was moved."""
    by_cache: dict[str, set[Column]] = {}
    for score in scores:
        by_cache.setdefault(score.cache, set()).add((score.view_set, score.views))
    groups: dict[str, set[Column]] = {}
    for cache, columns in by_cache.items():
        same = [other for other, views in groups.items() if views & columns]
        groups[same[0] if same else cache] = columns.union(*(groups.pop(other) for other in same))
    return groups


def _plots(
    of_task: Mapping[_Output, ScoreRow],
    rows: Mapping[_Output, EvaluationRow],
    groups: Mapping[str, set[Column]],
) -> list[Plot]:
    """Return a plot of a task for each cache in which it was measured at two resolutions or more."""
    first = next(iter(of_task.values()))
    plots = []
    for cache, views in groups.items():
        columns = _one_for_each_resolution(of_task.values(), views)
        if len(columns) < 2:
            continue
        lines = []
        for output in (output for output in rows if output in of_task):
            values = of_task[output].values
            if points := [(size, values[column]) for size, column in columns.items() if column in values]:
                lines.append(_line(rows[output], points))
        x = Axis(low=min(columns), high=max(columns), ticks=spaced_ticks(list(columns)))
        title = first.task if len(groups) == 1 else f"{first.task}, {cache}"
        plots.append(make_plot(title, _score_text(first), lines, over="px", x=x))
    return plots


def _one_for_each_resolution(rows: Iterable[ScoreRow], views: set[Column]) -> dict[int, Column]:
    """Return the views at each resolution, of several those that most rows have: only the same views are compared."""
    counts: dict[Column, int] = {}
    for row in rows:
        for column in row.values.keys() & views:
            counts[column] = counts.get(column, 0) + 1
    columns = sorted(counts, key=lambda column: (counts[column], column))
    by_size = {ViewSet.parse(name).resolution: (name, digest) for name, digest in columns}
    return dict(sorted(by_size.items()))


def _line(row: EvaluationRow, points: Points) -> Line:
    dashed = not row.trained or row.number // COLOURS % 2 == 1
    label = row.name if row.output in (BACKBONE, row.name) else f"{row.name}, {row.output}"
    return Line(label=label, colour=row.number % COLOURS, dashed=dashed, points=points)
