"""Finite fields GF(pᵏ), as far as Paley matrices need them: which exist, differences, and squares.

An element is an integer from 0 to q − 1. Its digits in base p are the coefficients of a polynomial of degree below k,
lowest power first. Polynomials are added digit by digit, and multiplied modulo an irreducible polynomial of degree k.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int8, Int64

from storage_schemas.format.errors import Problem, SettingError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FiniteField:
    """GF(pᵏ)."""

    characteristic: int
    """p, a prime."""
    degree: int
    """k, at least 1."""

    @property
    def order(self) -> int:
        """Q = pᵏ, the number of elements."""
        return int(self.characteristic**self.degree)


def has_field(order: int) -> bool:
    """Say whether there is a field with this many elements: one for every prime power, and no other."""
    return _prime_power(order) is not None


def field_of_order(order: int) -> FiniteField:
    """Return the field of `order` elements.

    Raises:
        SettingError: the order is not a prime power.
    """
    root = _prime_power(order)
    if root is None:
        raise SettingError("A finite field", [Problem(place=f"order {order}", found="is not a prime power")])
    return FiniteField(characteristic=root[0], degree=root[1])


def differences(field: FiniteField) -> Int64[np.ndarray, "q q"]:
    """Return the table whose entry [a, b] is the element a − b."""
    table = np.zeros((field.order, field.order), dtype=np.int64)
    for power, digit in enumerate(_digits(field.order, field.characteristic, field.degree).T):
        table += (digit[:, None] - digit[None, :]) % field.characteristic * field.characteristic**power
    return table


def quadratic_character(field: FiniteField) -> Int8[np.ndarray, " q"]:
    """Return χ for every element: 0 for zero, 1 for the square of a nonzero element, −1 for all others."""
    character = np.full(field.order, -1, dtype=np.int8)
    character[_squares(field)] = 1
    character[0] = 0
    return character


def irreducible_polynomial(field: FiniteField) -> Int64[np.ndarray, " k_plus_1"]:
    """Return the coefficients (lowest first) of the polynomial that is the modulus of multiplication.

    It is the first irreducible monic polynomial of degree k, if these are ordered by the number whose digits are the
    coefficients below the leading one. Another choice would give the same field with other names of its elements.
    """
    monic = _monic(field.characteristic, field.degree)
    return next(candidate for candidate in monic if _is_irreducible(candidate, field.characteristic))


def _prime_power(number: int) -> tuple[int, int] | None:
    """Return p and k with pᵏ = number, or None."""
    if number < 2:
        return None
    prime = next((d for d in range(2, math.isqrt(number) + 1) if number % d == 0), number)
    degree = next(k for k in range(1, number) if prime**k >= number)
    return (prime, degree) if prime**degree == number else None


def _squares(field: FiniteField) -> Int64[np.ndarray, " q"]:
    """Return x² for every element x."""
    p, k = field.characteristic, field.degree
    digits = _digits(field.order, p, k)
    product = np.zeros((field.order, 2 * k - 1), dtype=np.int64)
    for power in range(k):
        product[:, power : power + k] += digits[:, power, None] * digits
    return _remainder(product, irreducible_polynomial(field), p) @ p ** np.arange(k)


def _is_irreducible(polynomial: Int64[np.ndarray, " terms"], p: int) -> bool:
    """Say whether no monic polynomial of up to half the degree divides this one."""
    divisor_degrees = range(1, (polynomial.size - 1) // 2 + 1)
    divisors = (divisor for degree in divisor_degrees for divisor in _monic(p, degree))
    return all(_remainder(polynomial[None], divisor, p).any() for divisor in divisors)


def _monic(p: int, degree: int) -> Int64[np.ndarray, "count terms"]:
    """Return all monic polynomials of a degree, lowest coefficients first, ordered as for `irreducible_polynomial`."""
    lower = _digits(p**degree, p, degree)
    return np.concatenate([lower, np.ones((len(lower), 1), dtype=np.int64)], axis=1)


def _remainder(
    dividends: Int64[np.ndarray, "rows terms"], divisor: Int64[np.ndarray, " divisor_terms"], p: int
) -> Int64[np.ndarray, "rows degree"]:
    """Return the remainder of each row after division by a monic polynomial, coefficients modulo p."""
    degree = divisor.size - 1
    left = dividends % p
    for top in range(left.shape[1] - 1, degree - 1, -1):
        left[:, top - degree : top + 1] -= left[:, top, None] * divisor
        left %= p
    return left[:, :degree]


def _digits(count: int, p: int, length: int) -> Int64[np.ndarray, "count length"]:
    """Return the numbers below `count` written in base p, lowest digit first."""
    return np.arange(count)[:, None] // p ** np.arange(length) % p
