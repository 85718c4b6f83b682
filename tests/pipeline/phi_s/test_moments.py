import random
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.phi_s.moments import Moments, covariance, merge, merge_all, variance
from pipeline.phi_s.observe import non_finite_rows, observe, observe_all
from storage_schemas.format.errors import ContractError

CLOSE = 1e-9
"""Of the spread: |a − b| over the root of the product of the two channels' scatter."""


def correlated_rows(count: int, channels: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, channels)) @ rng.normal(size=(channels, channels))
    return torch.from_numpy((mixed + 10 * rng.normal(size=channels)).astype(np.float32))


def by_definition(rows: torch.Tensor) -> Moments:
    exact = rows.double().numpy()
    centred = exact - exact.mean(axis=0)
    return Moments(count=len(exact), mean=exact.mean(axis=0), scatter=centred.T @ centred)


def assert_same(found: Moments, expected: Moments, tolerance: float = CLOSE) -> None:
    assert found.count == expected.count
    total = np.diagonal(expected.scatter)
    np.testing.assert_array_less(np.abs(found.mean - expected.mean), tolerance * np.sqrt(total / found.count))
    np.testing.assert_array_less(np.abs(found.scatter - expected.scatter), tolerance * np.sqrt(np.outer(total, total)))
    np.testing.assert_array_equal(found.scatter, found.scatter.T)


@pytest.mark.parametrize("channels", [1, 3, 127, 128, 129, 300, 1030])
def test_moments_are_those_of_the_definition(channels: int) -> None:
    rows = correlated_rows(2500, channels)
    assert_same(observe(rows), by_definition(rows))


def test_a_single_row_has_itself_as_mean_and_no_scatter() -> None:
    found = observe(torch.tensor([[1.5, -2.0]]))
    assert (found.count, found.mean.tolist(), found.scatter.tolist()) == (1, [1.5, -2.0], [[0, 0], [0, 0]])


def test_variance_and_covariance_divide_by_one_less_than_the_count() -> None:
    rows = correlated_rows(50, 4)
    expected = np.cov(rows.double().numpy().T)
    np.testing.assert_allclose(covariance(observe(rows)), expected, rtol=1e-12)
    np.testing.assert_allclose(variance(observe(rows)), np.diagonal(expected), rtol=1e-12)


@given(
    cuts=st.lists(st.integers(1, 2999), max_size=12), seed=st.integers(0, 99), order=st.randoms(use_true_random=False)
)
def test_moments_do_not_depend_on_how_rows_were_split_nor_on_the_order_of_the_parts(
    cuts: list[int], seed: int, order: random.Random
) -> None:
    rows = correlated_rows(3000, 12, seed)
    parts = [observe(part) for part in torch.tensor_split(rows, sorted(set(cuts)))]
    order.shuffle(parts)
    assert_same(merge_all(parts), by_definition(rows))


@given(cuts=st.lists(st.integers(0, 3000), max_size=12), seed=st.integers(0, 99))
def test_blocks_observed_in_one_go_are_as_their_rows_together(cuts: list[int], seed: int) -> None:
    rows = correlated_rows(3000, 12, seed)
    assert_same(observe_all(torch.tensor_split(rows, sorted(cuts))), by_definition(rows))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_of_any_float_type_are_measured_at_their_exact_values(dtype: torch.dtype) -> None:
    rows = correlated_rows(200, 5).to(dtype)
    assert_same(observe(rows), by_definition(rows))


def test_a_mean_far_from_zero_cancels_nothing() -> None:
    rows = 1000 + torch.randn(5000, 6, generator=torch.Generator().manual_seed(0))
    assert_same(observe(rows), by_definition(rows))


def test_a_first_row_far_from_the_others_cancels_nothing() -> None:
    rows = correlated_rows(5000, 6)
    rows[0] = 1e5
    assert_same(observe(rows), by_definition(rows))


def test_rows_that_drift_after_the_first_ones_cancel_nothing() -> None:
    rows = correlated_rows(5000, 6)
    rows[1024:] += 1e4
    assert_same(observe(rows), by_definition(rows))


@pytest.mark.parametrize("value", [0.1, 0.5, -1e4 / 3])
def test_a_channel_that_never_changes_has_a_variance_of_exactly_zero(value: float) -> None:
    rows = correlated_rows(7000, 3)
    rows[:, 1] = value
    merged = merge_all(observe(part) for part in rows.split([3, 49, 98, 1850, 5000]))
    assert merged.mean[1] == np.float32(value)
    assert not merged.scatter[1].any()
    assert not merged.scatter[:, 1].any()


def test_merging_a_stream_holds_no_more_parts_than_the_tree_is_high() -> None:
    seen: list[weakref.ref[np.ndarray]] = []
    most = 0

    def parts() -> Iterator[Moments]:
        nonlocal most
        for number in range(256):
            part = Moments(count=1, mean=np.array([float(number)]), scatter=np.zeros((1, 1)))
            seen.append(weakref.ref(part.mean))
            most = max(most, sum(mean() is not None for mean in seen))
            yield part

    assert merge_all(parts()).mean == [127.5]
    assert most <= 10


def test_merging_is_a_balanced_tree_over_the_parts_in_their_order() -> None:
    parts = [observe(correlated_rows(5, 2, seed)) for seed in range(6)]
    by_hand = merge(merge(merge(parts[0], parts[1]), merge(parts[2], parts[3])), merge(parts[4], parts[5]))
    np.testing.assert_array_equal(merge_all(parts).scatter, by_hand.scatter)


def test_counts_beyond_64_bits_in_product_merge() -> None:
    wide = Moments(count=10**11, mean=np.array([0.0]), scatter=np.array([[1e11]]))
    other = Moments(count=10**11, mean=np.array([2.0]), scatter=np.array([[1e11]]))
    both = merge(wide, other)
    np.testing.assert_allclose([both.mean[0], variance(both)[0]], [1, 2], rtol=1e-9)


def test_rows_that_are_not_finite_are_refused_by_number() -> None:
    rows = torch.zeros(2000, 3)
    rows[3, 0], rows[1500, 1], rows[1500, 2] = torch.nan, torch.inf, -torch.inf
    assert np.flatnonzero(non_finite_rows(rows)).tolist() == [3, 1500]
    with pytest.raises(ContractError) as refusal:
        observe(rows)
    expected = "A feature array breaks the storage contract:\n  rows 3, 1500: NaN or infinity in 2 of 2000 rows"
    assert str(refusal.value) == expected


def test_bad_rows_of_a_later_block_are_counted_from_the_first_block_on() -> None:
    with pytest.raises(ContractError, match=r"rows 11: NaN or infinity in 1 of 14 rows$"):
        observe_all([torch.zeros(10, 2), torch.tensor([[0, 0], [0, torch.nan], [0, 0], [0, 0]]), torch.zeros(5, 2)])


def test_a_first_row_that_is_not_finite_does_not_blame_the_others() -> None:
    rows = torch.zeros(20, 1)
    rows[0] = torch.inf
    with pytest.raises(ContractError, match=r"rows 0: NaN or infinity in 1 of 20 rows$"):
        observe(rows)


def test_of_many_bad_rows_the_first_are_named_and_all_are_counted() -> None:
    with pytest.raises(ContractError, match=r"rows 0, 1, 2, 3, 4, 5, 6, 7, …: NaN or infinity in 30 of 30 rows$"):
        observe(torch.full((30, 2), torch.nan))
    with pytest.raises(ContractError, match=r"rows 0, 1, 2, 3, 4, 5, 6, 7: NaN or infinity in 8 of 8 rows$"):
        observe(torch.full((8, 2), torch.nan))


def moments(count: int, mean: list[float], scatter: list[list[float]]) -> Moments:
    return Moments(count=count, mean=np.array(mean), scatter=np.array(scatter))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: observe(torch.zeros(0, 3)), "A feature array: rows: expected at least one, there are none"),
        (lambda: observe_all([]), "A feature array: rows: expected at least one, there are none"),
        (lambda: merge_all([]), "Moments: parts: expected at least one, there are none"),
        (
            lambda: variance(observe(torch.ones(1, 1))),
            "Moments: count: expected at least two rows for a variance, is 1",
        ),
        (
            lambda: covariance(observe(torch.ones(1, 1))),
            "Moments: count: expected at least two rows for a variance, is 1",
        ),
        (
            lambda: merge(observe(torch.ones(1, 1)), observe(torch.ones(1, 2))),
            "Moments: channels: 1 and 2 cannot be merged",
        ),
        (
            lambda: observe_all([torch.ones(1, 2), torch.ones(1, 1)]),
            "Moments: channels: 2 and 1 cannot be merged",
        ),
        (lambda: moments(0, [0.0], [[0.0]]), "Moments: count: expected at least one row, is 0"),
        (lambda: moments(2, [0.0], [[np.nan]]), "Moments: mean, scatter: NaN or infinity"),
    ],
)
def test_what_has_no_moments_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ContractError) as refusal:
        make()
    subject, _, problem = message.partition(": ")
    assert str(refusal.value) == f"{subject} breaks the storage contract:\n  {problem}"


MEASURE_PEAK = """
import torch
from pipeline.phi_s.observe import observe

def peak_mebibytes():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024

observe(torch.zeros(2048, 64))
before = peak_mebibytes()
observe(torch.arange(64.0).expand(2_000_000, 64))
print(peak_mebibytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from /proc")
def test_memory_is_flat_in_the_number_of_rows() -> None:
    command = [sys.executable, "-c", MEASURE_PEAK]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 16  # MiB; the rows expanded to float64 would take 977


@pytest.mark.slow
@pytest.mark.parametrize("channels", [384, 768, 1152, 1536, 4096])
def test_moments_are_taken_at_half_the_rate_of_a_float32_product_or_better(channels: int) -> None:
    rows = torch.randn(max(4096, 2**24 // channels), channels)
    # in turn, and the fastest of each, since the machine may be busy with other things
    times = [(seconds(lambda: rows.T @ rows), seconds(lambda: observe(rows))) for _ in range(12)]
    product, observation = map(min, zip(*times, strict=True))
    print(f"{channels} channels: {product / observation:.2f} of the rate of sgemm")
    assert product / observation >= 0.5


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
