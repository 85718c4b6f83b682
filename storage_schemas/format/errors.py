"""What Stillhouse says when it refuses: one message, every problem, each with its place and its mend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    place: str
    """Where: a path, a field, a row; what a reader would open to see it."""
    found: str
    """What is there, beside what was expected."""
    fix: str = ""
    """What to do about it: a command, a setting, a value. Empty when `found` says it."""

    def __str__(self) -> str:
        fix = f" ({self.fix})" if self.fix else ""
        return f"{self.place}: {self.found}{fix}"


class AbstractStillhouseError(Exception):
    """A refusal that a user can act on; the command line prints it and exits with status 2."""

    verb = "is refused"

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        super().__init__(subject, tuple(problems))  # the arguments that pickle replays in another process
        self.subject = subject
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n  ".join([f"{self.subject} {self.verb}:", *map(str, self.problems)])


@final
class ContractError(AbstractStillhouseError):
    """Data breaks the storage contract: a shape, a name, a value that cannot be."""

    verb = "breaks the storage contract"


@final
class SettingError(AbstractStillhouseError):
    """A setting, an argument or an input that this run cannot work with."""

    verb = "cannot be used"


@final
class IdentityError(AbstractStillhouseError):
    """This run and what is already there are not of the same thing; nothing was mixed."""

    verb = "does not match what is already there"


@final
class BusyError(AbstractStillhouseError):
    """Another run is at work there; nothing was begun."""

    verb = "is being written"


@final
class MissingError(AbstractStillhouseError):
    """Something that an earlier stage makes, or that the user must supply, is not there."""

    verb = "is missing"


@final
class CorruptionError(AbstractStillhouseError):
    """Stored bytes are not the bytes that were committed."""

    verb = "is damaged"


@final
class StorageError(AbstractStillhouseError):
    """The store does not do what it is asked: an outage, a full disk, a missing permission. What is committed stays."""

    verb = "failed"
