"""Residuals are zero where PHI-S is perfect, and measure how far it is from that elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import ContractError
from storage_schemas.format.stats import ChannelStats, RoundingStats, shard_runs, shards_of_runs

ROUNDING = RoundingStats(numbers=100, float16=1e-8, int8=4e-4, saturated=0.01)


def test_a_perfect_fit_has_no_residual() -> None:
    perfect = ChannelStats(tokens=9, mean=np.zeros(4), variance=np.ones(4), spectrum=np.ones(4), rounding=ROUNDING)
    assert (perfect.mean_residual, perfect.variance_residual, perfect.variance_deviation) == (0.0, 0.0, 0.0)


def test_residuals_are_the_root_mean_square_mean_and_the_mean_variance_less_one() -> None:
    mean, variance = np.array([3.0, -4.0, 0.0, 0.0]), np.array([0.5, 0.5, 1.0, 4.0])
    stats = ChannelStats(tokens=9, mean=mean, variance=variance, spectrum=np.array([6.0, 0, 0, 0]), rounding=ROUNDING)
    assert (stats.mean_residual, stats.variance_residual) == (2.5, 0.5)


def test_variances_that_deviate_both_ways_do_not_cancel() -> None:
    stats = ChannelStats(
        tokens=9, mean=np.zeros(2), variance=np.array([0.25, 1.75]), spectrum=np.array([1.75, 0.25]), rounding=ROUNDING
    )
    assert (stats.variance_residual, stats.variance_deviation) == (0.0, 0.75)


def test_a_fidelity_is_the_mean_variance_over_the_mean_squared_error() -> None:
    variance = np.array([0.5, 1.5, 1.0, 5.0])
    stats = ChannelStats(tokens=9, mean=np.zeros(4), variance=variance, spectrum=variance, rounding=ROUNDING)
    assert stats.fidelity("int8") == pytest.approx(2.0 / 4e-4)
    assert stats.fidelity("float16") == pytest.approx(2.0 / 1e-8)
    assert stats.fidelity("float32") is None


def test_what_rounding_costs_is_read_back_and_nonsense_is_refused() -> None:
    assert RoundingStats.from_array(ROUNDING.array(), "here") == ROUNDING
    for odd in (np.zeros(3), np.array([0.0, 1, 1, 0]), np.array([9.0, -1, 1, 0])):
        with pytest.raises(ContractError) as refusal:
            RoundingStats.from_array(odd, "here")
        found = f"here: {odd.tolist()} are not a count and three numbers of at least 0"
        assert str(refusal.value) == f"statistics breaks the storage contract:\n  {found}"


@given(st.frozensets(st.integers(0, 60)))
def test_runs_of_shards_are_the_shards_again_and_the_fewest_that_can_be(shards: frozenset[int]) -> None:
    runs = shard_runs(shards)
    assert [shard for first, stop in runs for shard in range(first, stop)] == sorted(shards)
    assert len(runs) == len([shard for shard in shards if shard - 1 not in shards])
    assert shards_of_runs(runs, "here") == shards


@pytest.mark.parametrize("runs", [[[3, 3]], [[0, 2], [2, 4]], [[4, 5], [0, 1]], [[0, 3], [1, 4]]])
def test_what_are_no_runs_is_refused(runs: list[list[int]]) -> None:
    with pytest.raises(ContractError) as refusal:
        shards_of_runs(runs, "teachers/t/stats")
    assert str(refusal.value) == (
        "statistics breaks the storage contract:\n"
        f"  teachers/t/stats: {runs} are no runs of shards: rising, apart, none empty"
    )
