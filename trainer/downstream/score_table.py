"""Scores side by side: a row for each student, task, output and score, a column for each view set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from storage_schemas.format.identity import digest
from storage_schemas.format.plain_text import one_line
from storage_schemas.format.views import ViewSet
from trainer.downstream.results import SMALLER, Score

NONE = "—"
"""Text for a score that was not measured."""
SHOWN = 8
"""Characters of a digest that are shown."""
Column = tuple[str, str]
"""A view set, and the digest of its views: sets of the same name in two caches are two columns."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One score of one student or teacher, on every view set."""

    run: str
    """Name of the run or of the teacher."""
    task: str
    """The task, with those settings in which scores of the table differ."""
    output: str
    score: str
    values: Mapping[Column, float]
    lower_is_better: bool
    best: frozenset[Column]
    """Columns in which no other row with the same task, settings and score is better."""


def score_rows(scores: Mapping[str, Sequence[Score]]) -> list[ScoreRow]:
    """Return the rows of a table, in order of task, score, run and output.

    Args:
        scores: by name of the run or of the teacher.
    """
    found: dict[tuple[str, str, str, str], dict[Column, float]] = {}
    lower, tasks = {}, _task_names([score for of_run in scores.values() for score in of_run])
    for run, of_run in scores.items():
        for score in of_run:
            for name, value in score.scores.items():
                key = (tasks[_settings_key(score)], name, run, score.output)
                lower[key[:2]] = name in score.lower_is_better
                found.setdefault(key, {})[score.view_set, score.views] = value
    rows = []
    for key in sorted(found):
        others = [values for other, values in found.items() if other[:2] == key[:2]]
        best = frozenset(
            column
            for column, value in found[key].items()
            if _is_best(value, [values[column] for values in others if column in values], lowest=lower[key[:2]])
        )
        task, name, run, output = key
        rows.append(
            ScoreRow(
                run=run,
                task=task,
                output=output,
                score=name,
                values=found[key],
                lower_is_better=lower[key[:2]],
                best=best,
            )
        )
    return rows


def _is_best(value: float, compared: Sequence[float], *, lowest: bool) -> bool:
    """Whether a value is the best of those that it is compared with. Where all are alike, none is."""
    return len(set(compared)) > 1 and value == (min if lowest else max)(compared)


def columns_of(rows: Iterable[ScoreRow]) -> dict[Column, str]:
    """Return the columns of a table, the smallest resolution first, with their headings."""
    columns = sorted(
        {column for row in rows for column in row.values},
        key=lambda column: (ViewSet.parse(column[0]).resolution, column),
    )
    names = [name for name, _ in columns]
    return {(name, views): f"{name} {views[:SHOWN]}" if names.count(name) > 1 else name for name, views in columns}


def table_text(scores: Mapping[str, Sequence[Score]]) -> str:
    """Return a table for a terminal. The best of each column has a star.

    Args:
        scores: by name of the run or of the teacher.
    """
    rows = score_rows(scores)
    columns = columns_of(rows)
    lines = [["run", "task", "features", "score", *(f"{heading} " for heading in columns.values())]]
    for row in rows:
        values = [_value_text(row, column) for column in columns]
        lines.append([one_line(row.run), one_line(row.task), one_line(row.output), row.score, *values])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join(
            cell.ljust(width) if place < 4 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    legend = ["", "*: the best of its column, for each task and score"] if any(row.best for row in rows) else []
    return "\n".join([*texts, *legend])


def _value_text(row: ScoreRow, column: Column) -> str:
    if column not in row.values:
        return f"{NONE} "
    return f"{row.values[column]:.4f}{'*' if column in row.best else ' '}"


def _settings(score: Score) -> Mapping[str, Any]:
    """Return the settings that scores must share to be compared: all but digests of the student's own features."""
    return {name: value for name, value in score.settings.items() if name != SMALLER}


def _settings_key(score: Score) -> tuple[str, str]:
    return score.task, digest(_settings(score))


def _task_names(scores: Sequence[Score]) -> dict[tuple[str, str], str]:
    """Return a name for each task and settings: the task, with the settings in which scores of it differ."""
    by_task: dict[str, dict[str, Mapping[str, Any]]] = {}
    for score in scores:
        by_task.setdefault(score.task, {})[digest(_settings(score))] = _settings(score)
    return {
        (task, key): " ".join([task, *_different(chosen, list(settings.values()))])
        for task, settings in by_task.items()
        for key, chosen in settings.items()
    }


def _different(chosen: Mapping[str, Any], all_chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    names = sorted({name for settings in all_chosen for name in settings})
    odd = [name for name in names if len({repr(settings.get(name)) for settings in all_chosen}) > 1]
    return [f"{name}={_short(chosen.get(name, NONE))}" for name in odd]


def _short(value: Any) -> str:
    text = str(value)
    return text[:SHOWN] if len(text) == 64 else text
