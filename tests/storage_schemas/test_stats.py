"""Residuals are zero where PHI-S is perfect, and measure how far it is from that elsewhere."""

import numpy as np

from storage_schemas.stats import ChannelStats


def test_a_perfect_fit_has_no_residual() -> None:
    perfect = ChannelStats(tokens=9, mean=np.zeros(4), variance=np.ones(4))
    assert (perfect.mean_residual, perfect.variance_residual) == (0.0, 0.0)


def test_residuals_are_the_root_mean_square_mean_and_the_mean_variance_less_one() -> None:
    stats = ChannelStats(tokens=9, mean=np.array([3.0, -4.0, 0.0, 0.0]), variance=np.array([0.5, 0.5, 1.0, 4.0]))
    assert (stats.mean_residual, stats.variance_residual) == (2.5, 0.5)
