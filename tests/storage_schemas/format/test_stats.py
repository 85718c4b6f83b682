"""Residuals are zero where PHI-S is perfect, and measure how far it is from that elsewhere."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import ContractError
from storage_schemas.format.stats import (
    PAPER_DISPERSIONS,
    TOLERANCE,
    ChannelStats,
    RoundingStats,
    effective_rank,
    shard_runs,
    shards_of_runs,
)

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


def channels_of(mean: list[float], variance: list[float]) -> ChannelStats:
    """Statistics of channels with these means and variances."""
    spectrum = np.sort(np.array(variance))[::-1]
    return ChannelStats(
        tokens=9, mean=np.array(mean), variance=np.array(variance), spectrum=spectrum, rounding=ROUNDING
    )


def test_phi_s_is_off_where_channels_deviate_both_ways_and_cancel_in_the_mean() -> None:
    variances = channels_of([0.0] * 4, [0.5, 1.5, 0.7, 1.3])
    assert variances.variance_residual == pytest.approx(0), "the mean over channels sees nothing"
    assert variances.residual == pytest.approx(math.sqrt((0.25 + 0.25 + 0.09 + 0.09) / 4))
    assert variances.is_off()
    means = channels_of([0.3, -0.3], [1.0, 1.0])
    assert means.mean.mean() == 0
    assert means.residual == pytest.approx(0.3)
    assert means.is_off()


def test_the_residual_is_the_greater_of_the_two_norms() -> None:
    assert channels_of([0.3, -0.3], [1.1, 0.9]).residual == pytest.approx(0.3)
    assert channels_of([0.1, -0.1], [1.4, 0.6]).residual == pytest.approx(0.4)


def test_a_residual_at_the_tolerance_is_accepted_and_one_above_it_is_off() -> None:
    stats = channels_of([0.25, -0.25], [1.0, 1.0])
    assert not stats.is_off(0.25)
    assert stats.is_off(math.nextafter(0.25, 0))
    assert stats.is_off()
    assert TOLERANCE == 0.2
    assert not channels_of([0.1, -0.1], [1.1, 0.9]).is_off()


def test_dispersions_of_the_report_are_those_of_its_third_table() -> None:
    assert dict(PAPER_DISPERSIONS) == {"SigLIP2-g-384": 0.694, "DINOv3-H+": 2.12, "DINOv3-7B": 2.186}


def test_the_effective_rank_of_equal_variances_is_their_number() -> None:
    assert effective_rank(np.array([3.0, 3, 3, 3, 3, 0, 0])) == pytest.approx(5)
    assert effective_rank(np.array([1.0, 0])) == 1


def test_the_effective_rank_falls_as_variance_concentrates() -> None:
    # one share of a half and two of a quarter: 2 ** (1/2 · 1 + 2 · 1/4 · 2) axes
    assert effective_rank(np.array([2.0, 1, 1])) == pytest.approx(2**1.5)
    assert 1 < effective_rank(np.array([0.9, 0.1])) < 2


def test_the_effective_rank_is_zero_where_nothing_varies() -> None:
    assert effective_rank(np.zeros(3)) == 0


def test_a_fidelity_is_the_mean_variance_over_the_mean_squared_error() -> None:
    variance = np.array([0.5, 1.5, 1.0, 5.0])
    stats = ChannelStats(tokens=9, mean=np.zeros(4), variance=variance, spectrum=variance, rounding=ROUNDING)
    assert stats.fidelity("int8") == pytest.approx(2.0 / 4e-4)
    assert stats.fidelity("float16") == pytest.approx(2.0 / 1e-8)
    assert stats.fidelity("float32") is None


def test_what_rounding_costs_is_read_back_and_nonsense_is_refused() -> None:
    assert RoundingStats.from_array(ROUNDING.array(), "here") == ROUNDING
    one = replace(ROUNDING, numbers=1)
    assert RoundingStats.from_array(one.array(), "here") == one
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
        f"  teachers/t/stats: {runs} are not runs of shards: in order, apart from one another, none empty"
    )
