"""The closing table: facts about each teacher's features, and how well each student matches them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from trainer.report.numbers_as_text import NONE, bytes_text, number_text, signed_text
from trainer.report.results import RunResult

RANDOM = "random weights: a demonstration"
"""Label of teachers that were never trained."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentScore:
    """How well one student matches one teacher on held-out views."""

    student: str
    """Name of the run."""
    start: float | None
    """F of v2.5 eq 8 before the first step; None if it was not measured."""
    end: float | None
    """F of v2.5 eq 8 at the last evaluation after the first step; None before that evaluation."""
    step: int | None
    """Step of that evaluation."""
    steps: int
    """Steps of the whole run."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingRow:
    """One teacher."""

    teacher: str
    random_weights: bool
    views: int
    """Number of views with stored features."""
    bytes: int
    """Size of these features (bytes)."""
    mean_residual: float
    """Root mean square over channels of the stored mean (PHI-S units); 0 is perfect."""
    variance_residual: float
    """Mean over channels of the stored variance, minus 1 (PHI-S units squared); 0 is perfect."""
    dispersion: float | None
    """Disp(Θ_y) of v4 eq 6 (rad²); None for a teacher without a summary."""
    scores: tuple[StudentScore, ...]
    """One for each student that learns from this teacher."""


def closing_rows(facts: Mapping[str, Mapping[str, Any]], results: Sequence[RunResult]) -> list[ClosingRow]:
    """Return the rows of the table.

    Args:
        facts: `metrics.teacher_facts` of the cache.
        results: the runs.
    """
    return [
        ClosingRow(
            teacher=teacher,
            random_weights=fact["random_weights"],
            views=fact["rows"],
            bytes=fact["bytes"],
            mean_residual=fact["mean_residual"],
            variance_residual=fact["variance_residual"],
            dispersion=fact["dispersion"],
            scores=tuple(_score(result, teacher) for result in results if teacher in result.teachers),
        )
        for teacher, fact in facts.items()
    ]


def _score(result: RunResult, teacher: str) -> StudentScore:
    measured = [(found["step"], found["teachers"][teacher]["fidelity"]) for found in result.evaluations]
    before, after = [pair for pair in measured if pair[0] == 0], [pair for pair in measured if pair[0] > 0]
    return StudentScore(
        student=result.name,
        start=before[0][1] if before else None,
        end=after[-1][1] if after else None,
        step=after[-1][0] if after else None,
        steps=result.steps,
    )


HEADINGS = ("teacher", "views", "bytes", "PHI-S mean", "PHI-S var", "dispersion", "student", "F start", "F end", "step")
UNITS = ("", "", "stored", "rms", "mean − 1", "rad²", "", "", "", "")
_TO_THE_LEFT = {"teacher", "student"}


def closing_text(rows: Sequence[ClosingRow]) -> str:
    """Return the table as aligned text: a line for each teacher and student, then notes on the columns."""
    lines = [HEADINGS, UNITS, *(line for row in rows for line in _lines(row))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [_aligned(line, widths) for line in lines]
    return "\n".join([table[0], table[1], "─" * sum(widths, 2 * len(widths) - 2), *table[2:], "", *_notes(rows)])


def _lines(row: ClosingRow) -> Iterator[tuple[str, ...]]:
    facts = (
        row.teacher,
        str(row.views),
        bytes_text(row.bytes),
        number_text(row.mean_residual),
        signed_text(row.variance_residual),
        number_text(row.dispersion),
    )
    no_student = (NONE,) * 4
    students = [_cells(score) for score in row.scores] or [no_student]
    yield (*facts, *students[0])
    for student in students[1:]:
        yield (*("" for _ in facts), *student)


def _cells(score: StudentScore) -> tuple[str, str, str, str]:
    step = NONE if score.step is None else str(score.step)
    return score.student, number_text(score.start), number_text(score.end), f"{step}/{score.steps}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if heading in _TO_THE_LEFT else cell.rjust(width)
        for cell, width, heading in zip(line, widths, HEADINGS, strict=True)
    ]
    return "  ".join(cells).rstrip()


def _notes(rows: Iterable[ClosingRow]) -> Iterator[str]:
    yield "F: variance of the held-out features over the student's mean squared error; above 1, it beats their mean"
    if random := [row.teacher for row in rows if row.random_weights]:
        yield f"{RANDOM} ({', '.join(random)})"
