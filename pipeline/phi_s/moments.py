"""Count, mean and scatter of feature rows: all that PHI-S and the statistics need. Moments of parts can be merged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64

from storage_schemas.format.errors import ContractError, Problem


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Count, mean and scatter of a set of rows."""

    count: int
    """Rows."""
    mean: Float64[np.ndarray, " channels"]
    """(1/n) Σ x (the rows' unit)."""
    scatter: Float64[np.ndarray, "channels channels"]
    """Σ (x − mean)(x − mean)ᵀ (the rows' unit squared)."""

    def __post_init__(self) -> None:
        problems = []
        if self.count < 1:
            problems.append(Problem(place="count", found=f"expected at least one row, is {self.count}"))
        if self.scatter.shape != (self.mean.size, self.mean.size):
            found = f"{self.scatter.shape} does not fit {self.mean.size} channels"
            problems.append(Problem(place="scatter", found=found))
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scatter).all()):
            problems.append(Problem(place="mean, scatter", found="NaN or infinity"))
        if problems:
            raise ContractError("Moments", problems)


def merge(left: Moments, right: Moments) -> Moments:
    """Return the moments of two sets of rows together.

    With δ = mean₂ − mean₁: mean = mean₁ + δ n₂/n, scatter = scatter₁ + scatter₂ + δ δᵀ n₁n₂/n.
    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".

    Raises:
        ContractError: the two differ in channels.
    """
    refuse_other_channels(left.mean.size, right.mean.size)
    count = left.count + right.count
    delta = right.mean - left.mean
    between = delta * np.sqrt(left.count * right.count / count)  # one vector, squared: the scatter stays symmetric
    scatter = left.scatter + right.scatter + np.outer(between, between)
    return Moments(count=count, mean=left.mean + delta * (right.count / count), scatter=scatter)


def merge_all(parts: Iterable[Moments]) -> Moments:
    """Merge moments pairwise, as a balanced tree; no more are held at a time than the tree has levels.

    Raises:
        ContractError: there are none, or they differ in channels.
    """
    return merge_each({"": part} for part in parts)[""]


def merge_each(parts: Iterable[Mapping[str, Moments]]) -> dict[str, Moments]:
    """Merge the moments of each name with those of the same name, as `merge_all` does.

    Args:
        parts: moments by name; all parts have the same names.

    Raises:
        ContractError: there are no parts, or those of a name differ in channels.
    """
    subtrees: list[tuple[int, dict[str, Moments]]] = []  # (height, moments), heights falling
    for moments in parts:
        part, height = dict(moments), 0
        while subtrees and subtrees[-1][0] == height:
            part, height = _merged(subtrees.pop()[1], part), height + 1
        subtrees.append((height, part))
    if not subtrees:
        raise ContractError("Moments", [Problem(place="parts", found="expected at least one, there are none")])
    merged = subtrees.pop()[1]
    while subtrees:
        merged = _merged(subtrees.pop()[1], merged)
    return merged


def _merged(left: Mapping[str, Moments], right: Mapping[str, Moments]) -> dict[str, Moments]:
    return {name: merge(left[name], right[name]) for name in left}


def variance(moments: Moments) -> Float64[np.ndarray, " channels"]:
    """Return the variance of each channel, Σ (x − mean)² / (n − 1) (the rows' unit squared).

    Raises:
        ContractError: fewer than two rows.
    """
    return np.diagonal(moments.scatter) / _degrees_of_freedom(moments)


def covariance(moments: Moments) -> Float64[np.ndarray, "channels channels"]:
    """Return scatter / (n − 1) (the rows' unit squared).

    Raises:
        ContractError: fewer than two rows.
    """
    return moments.scatter / _degrees_of_freedom(moments)


def refuse_other_channels(expected: int, found: int) -> None:
    """Refuse to merge rows that differ in channels.

    Raises:
        ContractError: they differ.
    """
    if found != expected:
        raise ContractError("Moments", [Problem(place="channels", found=f"{expected} and {found} cannot be merged")])


def _degrees_of_freedom(moments: Moments) -> int:
    if moments.count < 2:
        found = f"expected at least two rows for a variance, is {moments.count}"
        raise ContractError("Moments", [Problem(place="count", found=found)])
    return moments.count - 1


NAMED = 8
"""Rows named in a message; the others are counted."""


def refuse_rows(subject: str, bad: Bool[np.ndarray, " rows"], found: str) -> None:
    """Refuse an array of which any row is bad.

    Args:
        subject: names the array; begins the message.
        bad: true for each row that cannot be used.
        found: what is wrong with these rows.

    Raises:
        ContractError: a row is bad; the message names the first few, and counts all.
    """
    numbers = np.flatnonzero(bad).tolist()
    if not numbers:
        return
    more = ", …" if len(numbers) > NAMED else ""
    place = f"rows {', '.join(map(str, numbers[:NAMED]))}{more}"
    raise ContractError(subject, [Problem(place=place, found=f"{found} in {len(numbers)} of {bad.size} rows")])
