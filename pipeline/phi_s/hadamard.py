"""Hadamard matrices: all entries have the same size and rows are orthogonal, so each row weighs all inputs equally.

    Sylvester   order 2ⁿ         H₂ₙ = [[1, 1], [1, −1]] ⊗ Hₙ
    Paley I     order q + 1      q a prime power, q ≡ 3 (mod 4)
    Paley II    order 2 (q + 1)  q a prime power, q ≡ 1 (mod 4)
    Kronecker   order m n        Hₘ ⊗ Hₙ is one whenever Hₘ and Hₙ are

Sources: Sylvester 1867; Paley 1933, "On orthogonal matrices". An order without a construction is refused: a random
rotation in its place would make the variances of channels only roughly equal.
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float64, Int8

from pipeline.phi_s.finite_field import differences, field_of_order, has_field, quadratic_character
from storage_schemas.format.errors import Problem, SettingError

Construction = Literal["Sylvester", "Paley I", "Paley II"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One matrix of the Kronecker product that is a Hadamard matrix."""

    construction: Construction
    """How the matrix is constructed."""
    order: int
    """Rows and columns."""

    def __str__(self) -> str:
        return f"{self.construction} {self.order}"


def hadamard(order: int) -> Float64[np.ndarray, "order order"]:
    """Return an orthogonal Hadamard matrix: every entry is ±1/√order, and H Hᵀ = I. It depends on the order alone.

    Raises:
        SettingError: the order has no construction; the message names the nearest orders that have one.
    """
    signs = functools.reduce(np.kron, map(_signs, construction(order)), np.ones((1, 1), dtype=np.int8))
    return signs * (1 / np.sqrt(np.float64(order)))


def construction(order: int) -> tuple[Factor, ...]:
    """Return the factors whose Kronecker product, left to right, is `hadamard(order)`; none for order 1.

    The Sylvester factor is the largest one that leaves a rest with a construction. Of the rest, the smallest possible
    Paley factor comes first, and Paley I before Paley II.

    Raises:
        SettingError: as for `hadamard`.
    """
    factors = _search(order)
    if factors is None:
        found = "no Kronecker product of Sylvester and Paley matrices has this order"
        raise SettingError("A Hadamard matrix", [Problem(place=f"order {order}", found=found, fix=_nearest(order))])
    return factors


def _nearest(order: int) -> str:
    """Name the nearest orders below and above that have a construction."""
    if order < 1:
        return "the smallest order is 1"
    below = next(n for n in range(order - 1, 0, -1) if _search(n) is not None)
    above = next(n for n in range(order + 1, 2 * order + 1) if _search(n) is not None)
    return f"the nearest that exist are {below} and {above}"


def _search(order: int) -> tuple[Factor, ...] | None:
    """Try Sylvester factors from the largest down, with Paley factors for the rest; None where none fits."""
    twos = order & -order if order > 0 else 0
    while twos:
        rest = _paley_factors(order // twos)
        if rest is not None:
            return (Factor(construction="Sylvester", order=twos), *rest) if twos > 1 else rest
        twos //= 2
    return None


@functools.cache
def _paley_factors(order: int) -> tuple[Factor, ...] | None:
    """Write an order as a product of Paley orders, smallest first; None where there is no such product."""
    if order == 1:
        return ()
    if (whole := _paley_factor(order)) is not None:
        return (whole,)
    for divisor in range(4, math.isqrt(order) + 1, 4):  # the smallest of two or more factors is at most the root
        factor, cofactor = _paley_factor(divisor), order // divisor
        if order % divisor == 0 and factor is not None and (rest := _paley_factors(cofactor)) is not None:
            return (factor, *rest)
    return None


@functools.cache
def _paley_factor(order: int) -> Factor | None:
    """Return the Paley construction of this order, if there is one."""
    if order % 4 == 0 and has_field(order - 1):
        return Factor(construction="Paley I", order=order)
    if order % 8 == 4 and has_field(order // 2 - 1):  # order / 2 − 1 ≡ 1 (mod 4)
        return Factor(construction="Paley II", order=order)
    return None


def _signs(factor: Factor) -> Int8[np.ndarray, "order order"]:
    """Return one factor with entries ±1."""
    if factor.construction == "Sylvester":
        doublings = [np.array([[1, 1], [1, -1]], dtype=np.int8)] * (factor.order.bit_length() - 1)
        return functools.reduce(np.kron, doublings)
    return _paley_one(factor.order) if factor.construction == "Paley I" else _paley_two(factor.order)


def _paley_one(order: int) -> Int8[np.ndarray, "order order"]:
    """I + S, where S is the skew conference matrix of order q + 1."""
    bordered = _bordered_jacobsthal(order - 1)
    bordered[1:, 0] = -1
    return bordered + np.eye(order, dtype=np.int8)


def _paley_two(order: int) -> Int8[np.ndarray, "order order"]:
    """S ⊗ [[1, 1], [1, −1]] + I ⊗ [[1, −1], [−1, −1]], where S is the symmetric conference matrix of order q + 1."""
    conference = _bordered_jacobsthal(order // 2 - 1)
    off_diagonal = np.array([[1, 1], [1, -1]], dtype=np.int8)
    diagonal = np.array([[1, -1], [-1, -1]], dtype=np.int8)
    return np.kron(conference, off_diagonal) + np.kron(np.eye(order // 2, dtype=np.int8), diagonal)


def _bordered_jacobsthal(q: int) -> Int8[np.ndarray, "q_plus_1 q_plus_1"]:
    """Return the Jacobsthal matrix Q[a, b] = χ(a − b) over GF(q), bordered by ones, with corner 0."""
    field = field_of_order(q)
    bordered = np.ones((q + 1, q + 1), dtype=np.int8)
    bordered[0, 0] = 0
    bordered[1:, 1:] = quadratic_character(field)[differences(field)]
    return bordered
