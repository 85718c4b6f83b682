import numpy as np
import pytest

from pipeline.phi_s.finite_field import (
    differences,
    field_of_order,
    has_field,
    irreducible_polynomial,
    quadratic_character,
)
from storage_schemas.format.errors import SettingError

PRIMES = [p for p in range(2, 300) if all(p % d for d in range(2, p))]
PRIME_POWERS = sorted(p**k for p in PRIMES for k in range(1, 9) if p**k < 300)
ODD_PRIME_POWERS = [q for q in PRIME_POWERS if q % 2]


def test_a_field_exists_for_each_prime_power_and_no_other_order() -> None:
    assert [order for order in range(-2, 300) if has_field(order)] == PRIME_POWERS


@pytest.mark.parametrize("order", [1, 12])
def test_an_order_without_a_field_is_refused(order: int) -> None:
    with pytest.raises(SettingError) as refusal:
        field_of_order(order)
    assert str(refusal.value) == f"A finite field cannot be used:\n  order {order}: is not a prime power"


@pytest.mark.parametrize("order", PRIME_POWERS)
def test_the_field_has_its_order(order: int) -> None:
    field = field_of_order(order)
    assert field.order == order
    assert field.characteristic in PRIMES


@pytest.mark.parametrize("order", [q for q in PRIMES if 2 < q < 100])
def test_a_prime_field_is_arithmetic_modulo_the_prime(order: int) -> None:
    field = field_of_order(order)
    assert differences(field).tolist() == [[(a - b) % order for b in range(order)] for a in range(order)]
    by_euler = [pow(a, (order - 1) // 2, order) for a in range(order)]
    assert quadratic_character(field).tolist() == [-1 if value == order - 1 else value for value in by_euler]


def test_the_field_of_nine_is_the_gaussian_integers_modulo_three() -> None:
    field = field_of_order(9)
    assert irreducible_polynomial(field).tolist() == [1, 0, 1]  # so that the square of x is -1
    elements = [complex(number % 3, number // 3) for number in range(9)]
    squares = {(z * z).real % 3 + 3 * ((z * z).imag % 3) for z in elements[1:]}
    expected = [0, *(1 if number in squares else -1 for number in range(1, 9))]
    assert quadratic_character(field).tolist() == expected
    minus = [[(a - b).real % 3 + 3 * ((a - b).imag % 3) for b in elements] for a in elements]
    assert differences(field).tolist() == minus


@pytest.mark.parametrize("order", [q for q in ODD_PRIME_POWERS if q not in PRIMES])
def test_the_polynomial_is_the_first_that_is_no_product_of_smaller_ones(order: int) -> None:
    field = field_of_order(order)
    p, k = field.characteristic, field.degree

    def monic(degree: int) -> list[tuple[int, ...]]:
        return [(*(number // p**i % p for i in range(degree)), 1) for number in range(p**degree)]

    pairs = [(f, g) for degree in range(1, k // 2 + 1) for f in monic(degree) for g in monic(k - degree)]
    products = {tuple((np.convolve(f, g) % p).tolist()) for f, g in pairs}
    first = next(polynomial for polynomial in monic(k) if polynomial not in products)
    assert tuple(irreducible_polynomial(field).tolist()) == first


@pytest.mark.parametrize("order", ODD_PRIME_POWERS)
def test_shifts_of_the_quadratic_character_correlate_as_paley_needs(order: int) -> None:
    field = field_of_order(order)
    jacobsthal = quadratic_character(field)[differences(field)].astype(int)
    identity, ones = np.eye(order, dtype=int), np.ones((order, order), dtype=int)
    np.testing.assert_array_equal(jacobsthal @ jacobsthal.T, order * identity - ones)
    assert not jacobsthal.sum(axis=1).any()
