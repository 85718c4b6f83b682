"""Going on after something is found wrong, so that everything that is wrong gets said."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

from storage_schemas.format.errors import AbstractStillhouseError, Problem

MALFORMED = (ValueError, LookupError, TypeError, AttributeError)
"""What parsers raise over values that nobody wrote."""
NAMED = 8
"""Rows that one problem names; the others are counted."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """What was found so far, added to as a check goes on."""

    problems: list[Problem] = field(default_factory=list)
    """Everything that is wrong."""
    known: set[str] = field(default_factory=set)
    """Objects that something in the cache names, relative to the cache, whether they are there or not."""

    def note(self, place: str, found: str, fix: str) -> None:
        """Note one thing that is wrong."""
        self.problems.append(Problem(place=place, found=found, fix=fix))


@contextmanager
def noting(problems: list[Problem], place: str, fix: str) -> Iterator[None]:
    """Turn what a block raises into problems, and go on after it.

    Args:
        problems: where they are noted.
        place: what the block reads, for errors that do not say.
        fix: what to do about it, for errors that do not say.
    """
    try:
        yield
    except AbstractStillhouseError as error:
        problems += [_completed(one, place, fix) for one in error.problems]
    except (*MALFORMED, OSError) as error:
        problems.append(Problem(place=place, found=f"cannot be read: {type(error).__name__}: {error}", fix=fix))


def rows_problem(place: str, rows: Sequence[int], found: str, fix: str) -> Iterator[Problem]:
    """Yield one problem that names the first few of some rows, and counts all; none for no rows."""
    if rows:
        named = ", ".join(map(str, rows[:NAMED])) + (f", … ({len(rows)} rows)" if len(rows) > NAMED else "")
        yield Problem(place=f"{place} row {named}", found=found, fix=fix)


def _completed(problem: Problem, place: str, fix: str) -> Problem:
    # a place without a folder is a field of something, and only the caller knows of what
    whole = problem.place if "/" in problem.place else f"{place}: {problem.place}"
    return Problem(place=whole, found=problem.found, fix=fix or problem.fix)
