"""What a stored JSON document may hold: types, bounds and fields, checked before anything is made of it.

A cache may come from a stranger. Its seals show that its documents are whole, not that their values make sense: a count
may be 10⁹, fractional or text, a list may be empty or nested a thousand times. A kind below says what a value may be;
`require` names everything that is not so, by its place in the document.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from storage_schemas.format.errors import ContractError, Problem, first_problems

DEEPEST = 32
"""Levels of lists and objects in a document."""
MOST_VALUES = 10**6
"""Values in a document whose fields are free."""
FIX = "another program or version wrote it, or somebody changed it: use a copy that Stillhouse wrote"


class AbstractKind(ABC):
    """What a value may be."""

    __slots__ = ()

    @abstractmethod
    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(AbstractKind):
    """A whole number: 4.0 and true are none."""

    least: int
    """The smallest one that is allowed."""
    most: int
    """The largest one that is allowed."""

    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""
        if type(value) is not int or not self.least <= value <= self.most:
            yield _unlike(value, place, f"a whole number from {self.least} to {self.most}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Number(AbstractKind):
    """A finite number."""

    least: float = -1e300
    """The smallest one that is allowed."""
    most: float = 1e300
    """The largest one that is allowed."""

    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""
        if type(value) not in (int, float) or not self.least <= value <= self.most:
            yield _unlike(value, place, f"a number from {self.least:g} to {self.most:g}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Text(AbstractKind):
    """A text of one line."""

    most: int = 1000
    """Characters at most."""
    pattern: str = ""
    """A regular expression that the whole text matches; any text where it is empty."""

    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""
        if not isinstance(value, str) or len(value) > self.most or not value.isprintable():
            yield _unlike(value, place, f"printable text of at most {self.most} characters")
        elif self.pattern and not re.fullmatch(self.pattern, value):
            yield _unlike(value, place, f"text of the form {self.pattern}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(AbstractKind):
    """True or false."""

    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""
        if not isinstance(value, bool):
            yield _unlike(value, place, "true or false")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(AbstractKind):
    """One of some texts."""

    names: tuple[str, ...]
    """What it may be."""

    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""
        if not isinstance(value, str) or value not in self.names:
            yield _unlike(value, place, f"one of {', '.join(self.names)}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OrNull(AbstractKind):
    """A value, or null."""

    kind: AbstractKind
    """What it is where it is not null."""

    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""
        if value is not None:
            yield from self.kind.problems(value, place)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf(AbstractKind):
    """A list of values of one kind."""

    kind: AbstractKind
    """What each value is."""
    fewest: int = 0
    """Values at least."""
    most: int = MOST_VALUES
    """Values at most."""

    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""
        if not isinstance(value, list | tuple) or not self.fewest <= len(value) <= self.most:
            yield _unlike(value, place, f"a list of {self.fewest} to {self.most} values")
            return
        for number, item in enumerate(value):
            yield from self.kind.problems(item, f"{place}.{number}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectOf(AbstractKind):
    """An object whose names are of one form and whose values are of one kind."""

    kind: AbstractKind
    """What each value is."""
    names: str
    """A regular expression that each name matches."""
    fewest: int = 0
    """Fields at least."""
    most: int = 10_000
    """Fields at most."""

    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""
        if not isinstance(value, Mapping) or not self.fewest <= len(value) <= self.most:
            yield _unlike(value, place, f"an object of {self.fewest} to {self.most} fields")
            return
        for name, item in value.items():
            if not re.fullmatch(self.names, name):
                yield _unlike(name, place, f"a name of the form {self.names}")
            else:
                yield from self.kind.problems(item, f"{place}.{name}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fields(AbstractKind):
    """An object with certain fields. Each must be there, but for the optional ones."""

    kinds: Mapping[str, AbstractKind]
    """Fields that must be there."""
    optional: Mapping[str, AbstractKind]
    """Fields that may be there."""
    open: bool
    """Whether it may have further fields, of any value."""

    def problems(self, value: Any, place: str) -> Iterator[Problem]:
        """Yield what a value should be and is not."""
        if not isinstance(value, Mapping):
            yield _unlike(value, place, "an object")
            return
        known = {**self.kinds, **self.optional}
        if lacking := sorted(self.kinds.keys() - value.keys()):
            yield Problem(place=place, found=f"lacks {', '.join(lacking)}")
        for name, item in value.items():
            if name in known:
                yield from known[name].problems(item, f"{place}.{name}")
            elif not self.open:
                yield Problem(place=place, found=f"has the unknown field {name[:80]!r}")


def fields(kinds: Mapping[str, AbstractKind], **optional: AbstractKind) -> Fields:
    """Return the kind of an object with these fields and no others."""
    return Fields(kinds=kinds, optional=optional, open=False)


def open_fields(kinds: Mapping[str, AbstractKind], **optional: AbstractKind) -> Fields:
    """Return the kind of an object with these fields, which may have others too."""
    return Fields(kinds=kinds, optional=optional, open=True)


ANY_OBJECT = open_fields({})
"""An object with any fields: `require_modest` bounds it."""


def require(subject: str, value: Any, kind: AbstractKind, place: str) -> None:
    """Refuse a value that is not of a kind.

    Args:
        subject: what it is, for the message.
        value: of a JSON document.
        kind: what it must be.
        place: where it lies, for the message.

    Raises:
        ContractError: it is something else; every difference is named, up to ten.
    """
    if problems := list(kind.problems(value, place)):
        raise ContractError(subject, [*first_problems(problems), Problem(place="what to do", found=FIX)])


def require_modest(subject: str, document: Any, place: str) -> None:
    """Refuse a document that is nested too deeply, or holds too many values, for what follows.

    Raises:
        ContractError: it is.
    """
    level, depth, count = [document], 0, 0
    while level:
        count += len(level)
        if depth > DEEPEST or count > MOST_VALUES:
            found = (
                f"is nested more than {DEEPEST} levels deep" if depth > DEEPEST else f"has over {MOST_VALUES} values"
            )
            raise ContractError(subject, [Problem(place=place, found=found, fix=FIX)])
        inner = [values.values() if isinstance(values, dict) else values for values in level if _has_values(values)]
        level, depth = [item for values in inner for item in values], depth + 1


def _has_values(value: Any) -> bool:
    return isinstance(value, dict | list)


def _unlike(value: Any, place: str, expected: str) -> Problem:
    shown = repr(value) if not isinstance(value, dict | list | tuple) else f"{type(value).__name__} of {len(value)}"
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return Problem(place=place, found=f"{shown} is not {expected}")
