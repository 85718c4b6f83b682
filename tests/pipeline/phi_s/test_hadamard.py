import hashlib
import math
import time

import numpy as np
import pytest

from pipeline.phi_s.hadamard import construction, hadamard
from storage_schemas.format.errors import SettingError

TEACHER_CHANNELS = {
    64: "Sylvester 64",
    192: "Sylvester 16, Paley I 12",
    768: "Sylvester 64, Paley I 12",
    1024: "Sylvester 1024",
    1152: "Sylvester 32, Paley II 36",
    1280: "Sylvester 64, Paley I 20",
    1408: "Sylvester 32, Paley I 44",
    1536: "Sylvester 128, Paley I 12",
    1664: "Sylvester 32, Paley II 52",
    4096: "Sylvester 4096",
}


def orders_by_definition(limit: int) -> set[int]:
    """Close {2} and Paley's orders under multiplication, starting from a list of primes."""
    primes = [p for p in range(3, limit) if all(p % d for d in range(2, math.isqrt(p) + 1))]
    powers = [p**k for p in primes for k in range(1, 12) if p**k < limit]
    generators = {2, *(q + 1 for q in powers if q % 4 == 3), *(2 * (q + 1) for q in powers if q % 4 == 1)}
    reached, fresh = {1}, {1}
    while fresh:
        fresh = {m * n for m in fresh for n in generators if m * n <= limit} - reached
        reached |= fresh
    return reached


def reaches(order: int) -> bool:
    try:
        return math.prod(factor.order for factor in construction(order)) == order
    except SettingError:
        return False


def test_every_order_that_the_constructions_and_their_products_reach_is_found() -> None:
    reached = {order for order in range(1, 2049) if reaches(order)}
    assert reached == orders_by_definition(2048)


def test_one_hundred_and_forty_multiples_of_four_up_to_2048_have_no_construction() -> None:
    missing = [order for order in range(4, 2049, 4) if not reaches(order)]
    assert len(missing) == 140
    assert missing[:4] == [92, 116, 156, 172]


def test_every_order_up_to_256_is_exactly_orthogonal_with_entries_of_one_size() -> None:
    for order in sorted(orders_by_definition(256)):
        matrix = hadamard(order)
        assert set(np.unique(np.abs(matrix))) == {1 / np.sqrt(order)}
        signs = np.sign(matrix).astype(int)
        np.testing.assert_array_equal(signs @ signs.T, order * np.eye(order, dtype=int), err_msg=f"order {order}")


def test_products_of_two_paley_matrices_are_used_where_nothing_else_serves() -> None:
    assert ", ".join(map(str, construction(1904))) == "Paley I 28, Paley I 68"
    signs = np.sign(hadamard(1904)).astype(np.float32)
    np.testing.assert_array_equal(signs @ signs.T, 1904 * np.eye(1904))


@pytest.mark.parametrize("channels", TEACHER_CHANNELS)
def test_a_matrix_for_a_teacher_is_orthogonal_by_a_fixed_choice_and_quick(channels: int) -> None:
    assert ", ".join(map(str, construction(channels))) == TEACHER_CHANNELS[channels]
    start = time.process_time()
    matrix = hadamard(channels)
    assert time.process_time() - start < 1
    assert np.unique(np.abs(matrix)) == np.array([1 / np.sqrt(channels)])
    assert np.abs(matrix @ matrix.T - np.eye(channels)).max() < 1e-12


def test_the_matrices_never_change() -> None:
    signs = b"".join(np.signbit(hadamard(order)).tobytes() for order in (1, 2, 12, 20, 28, 36, 52, 112, 1152))
    assert hashlib.sha256(signs).hexdigest() == "a32986b1876d9d0de581f10cd42a84f2d458cae5ac81b93468684fa6cf9353f3"


@pytest.mark.parametrize(
    ("order", "fix"),
    [
        (3, "the nearest that exist are 2 and 4"),
        (92, "the nearest that exist are 88 and 96"),
        (1030, "the nearest that exist are 1024 and 1032"),
        (0, "the smallest order is 1"),
        (-4, "the smallest order is 1"),
    ],
)
def test_an_order_without_a_construction_is_refused_with_its_neighbours(order: int, fix: str) -> None:
    with pytest.raises(SettingError) as refusal:
        hadamard(order)
    found = "no Kronecker product of Sylvester and Paley matrices has this order"
    assert str(refusal.value) == f"A Hadamard matrix cannot be used:\n  order {order}: {found} ({fix})"
