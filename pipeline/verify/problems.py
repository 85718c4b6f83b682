"""Collecting problems: a check goes on after the first one, so that one run names everything that is wrong."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

from storage_schemas.format.errors import (
    MALFORMED,
    AbstractStillhouseError,
    Problem,
    StorageError,
    cause_text,
    first_few,
)
from storage_schemas.objects.refusals import is_of_the_system, refused

ROWS_NAMED = 8
"""How many rows one problem names; it only counts the others."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """What the checks of a cache have found so far. Each check adds to it."""

    problems: list[Problem] = field(default_factory=list)
    """Everything that is wrong."""
    referenced: set[str] = field(default_factory=set)
    """Objects that a manifest, a group or a commit record names, relative to the cache, whether they exist or not."""

    def add(self, place: str, found: str, fix: str) -> None:
        """Add one problem."""
        self.problems.append(Problem(place=place, found=found, fix=fix))


@contextmanager
def collecting(problems: list[Problem], place: str, fix: str) -> Iterator[None]:
    """Turn an error that the block raises into problems; the code after the block still runs.

    An error of the store or of the system says nothing about the bytes that are stored, so it is no problem of the
    cache: it goes through, and ends the command.

    Args:
        problems: the list to add to.
        place: what the block reads, for errors that do not name a place.
        fix: what to do, for errors that do not say it.

    Raises:
        StorageError: the store fails, or the system refuses: too many open files, no permission, a disk that fails.
    """
    try:
        yield
    except StorageError:
        raise
    except AbstractStillhouseError as error:
        problems += [_completed(problem, place, fix) for problem in error.problems]
    except (*MALFORMED, OSError) as error:
        if isinstance(error, OSError) and is_of_the_system(error):
            raise refused(error.filename or place, error) from error
        problems.append(Problem(place=place, found=f"cannot be read: {cause_text(error)}", fix=fix))


def rows_problem(place: str, rows: Sequence[int], found: str, fix: str) -> Iterator[Problem]:
    """Yield one problem that names the first of some rows and counts the others; nothing where there are no rows."""
    if rows:
        yield Problem(place=f"{place} row {', '.join(first_few(rows, ROWS_NAMED))}", found=found, fix=fix)


def _completed(problem: Problem, place: str, fix: str) -> Problem:
    # a place without a folder is a field of a document, and only the caller knows which document
    whole = problem.place if "/" in problem.place else f"{place}: {problem.place}"
    return Problem(place=whole, found=problem.found, fix=fix or problem.fix)
