"""The errors that a user can act on: one message with every problem, each with its place and its fix."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import final

from storage_schemas.format.plain_text import one_line

MALFORMED = (ValueError, LookupError, TypeError, AttributeError)
"""What a parser raises when a document does not have the structure that our writers give it."""


LONGEST_CAUSE = 300
"""Characters of a library's message that are shown: it may repeat a value of any length."""


def cause_text(error: BaseException) -> str:
    """Return what a library says of a failure, with the kind of its error, not longer than a few lines."""
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= LONGEST_CAUSE else f"{text[:LONGEST_CAUSE]}…"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    place: str
    """Where it is: a path, a field, a row; what a user opens to see it."""
    found: str
    """What was found there, and what was expected."""
    fix: str = ""
    """What to do about it: a command, a setting, a value. Empty where `found` makes it clear."""

    def __str__(self) -> str:
        fix = f" ({self.fix})" if self.fix else ""
        return one_line(f"{self.place}: {self.found}{fix}")


def first_few(items: Iterable[object], most: int = 10) -> list[str]:
    """Return the first items as text, and how many more there are.

    Join them for a sentence: `", ".join(first_few(rows))` is `0, 1, 2, and 40 more` with `most=3`.

    Args:
        items: what a message lists.
        most: how many of them it names.

    Returns:
        At most `most` texts, then `and N more` where there are others.
    """
    texts = [str(item) for item in items]
    rest = len(texts) - most
    return [*texts[:most], *([f"and {rest} more"] if rest > 0 else [])]


def first_problems(problems: Sequence[Problem], most: int = 10) -> list[Problem]:
    """Return the first problems, and one that says how many more there are; see `first_few`."""
    return [*problems[:most], *(Problem(place="…", found=rest) for rest in first_few(problems, most)[most:])]


class AbstractStillhouseError(Exception):
    """A refusal that a user can act on. The command line prints it and exits with status 2."""

    verb = "is refused"

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        super().__init__(subject, tuple(problems))  # the arguments that pickle replays in another process
        self.subject = subject
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n  ".join([one_line(f"{self.subject} {self.verb}:"), *map(str, self.problems)])


@final
class ContractError(AbstractStillhouseError):
    """Data breaks the storage contract: a shape, a name or a value that is not allowed."""

    verb = "breaks the storage contract"


@final
class SettingError(AbstractStillhouseError):
    """This run cannot work with a setting, an argument or an input."""

    verb = "cannot be used"


@final
class IdentityError(AbstractStillhouseError):
    """This run computes something else than what is already there. Nothing was mixed."""

    verb = "does not match what is already there"


@final
class BusyError(AbstractStillhouseError):
    """Another run is writing there. Nothing was started."""

    verb = "is being written"


@final
class MissingError(AbstractStillhouseError):
    """Something that an earlier stage makes, or that the user supplies, is not there."""

    verb = "is missing"


@final
class CorruptionError(AbstractStillhouseError):
    """Stored bytes are not the bytes that were committed."""

    verb = "is damaged"


@final
class StorageError(AbstractStillhouseError):
    """The store fails: an outage, a full disk, a missing permission. What was committed stays."""

    verb = "failed"


def require_fields(subject: str, place: str, found: Collection[str], expected: Collection[str]) -> None:
    """Refuse a stored object whose fields are not those of this version.

    Args:
        subject: what the object is, for the message.
        place: where it lies, for the message.
        found: names of its fields.
        expected: names of the fields that this version reads.

    Raises:
        ContractError: fields are missing or unknown; it names all of them.
    """
    kinds = {"lacks": set(expected) - set(found), "has unknown": set(found) - set(expected)}
    odd = [f"{kind} {', '.join(sorted(names))}" for kind, names in kinds.items() if names]
    if odd:
        fix = "another version of Stillhouse wrote it: use that version"
        raise ContractError(subject, [Problem(place=place, found=" and ".join(odd), fix=fix)])
