from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.phi_s.fit import fit_phi_s
from pipeline.phi_s.moments import Moments
from pipeline.phi_s.observe import observe
from storage_schemas.format.errors import ContractError, SettingError
from storage_schemas.format.phi_s import PhiS, to_raw, to_stored
from trainer.objective.losses import spatial_mse

FLOAT32_ROUNDING = 2.0**-24
CHANNELS = [64, 192, 768] + [pytest.param(c, marks=pytest.mark.slow) for c in (1024, 1152, 1280, 1408, 1536)]


def gaussian_rows(channels: int, rows: int, spread: np.ndarray) -> np.ndarray:
    """Rows about a mean of a few units, with standard deviations `spread` along random orthogonal axes."""
    rng = np.random.default_rng(channels)
    axes = np.linalg.qr(rng.normal(size=(channels, len(spread))))[0]
    return (rng.normal(size=(rows, len(spread))) * spread @ axes.T + 3 * rng.normal(size=channels)).astype(np.float32)


def even(channels: int) -> np.ndarray:
    return gaussian_rows(channels, 2 * channels, np.linspace(0.5, 2, channels))


def ill_conditioned(channels: int) -> np.ndarray:
    return gaussian_rows(channels, 2 * channels, np.logspace(1, -6, channels))


def rank_deficient(channels: int) -> np.ndarray:
    return gaussian_rows(channels, channels // 2, np.logspace(1, -1, channels // 4))


def fit(rows: np.ndarray) -> PhiS:
    return fit_phi_s(observe(torch.from_numpy(rows)))


@pytest.mark.parametrize("draw", [even, ill_conditioned, rank_deficient])
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_channel_gets_variance_one_and_the_way_back_is_exact(
    channels: int, draw: Callable[[int], np.ndarray]
) -> None:
    rows = draw(channels)
    phi_s = fit(rows)

    covariance = np.cov(rows.astype(np.float64).T)
    np.testing.assert_allclose(phi_s.mean, rows.mean(axis=0, dtype=np.float64), rtol=0, atol=1e-12)
    np.testing.assert_allclose(phi_s.scale**2, np.trace(covariance) / channels, rtol=1e-9)
    np.testing.assert_allclose(phi_s.rotation @ phi_s.rotation.T, np.eye(channels), atol=1e-12)
    exact = np.diagonal(phi_s.rotation @ covariance @ phi_s.rotation.T) / phi_s.scale**2
    np.testing.assert_allclose(exact, 1, rtol=1e-9)

    stored = to_stored(phi_s, rows)
    np.testing.assert_allclose(stored.var(axis=0, ddof=1, dtype=np.float64), 1, rtol=1e-3)
    rounding = 8 * FLOAT32_ROUNDING * np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_array_less(np.abs(to_raw(phi_s, stored) - rows), np.broadcast_to(rounding, rows.shape))


@given(channels=st.sampled_from([1, 2, 4, 12, 20, 36, 64]), seed=st.integers(0, 2**31), spread=st.floats(0, 4))
def test_squared_error_in_phi_s_units_is_the_raw_one_over_phi_squared(channels: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    scales = np.logspace(0, -spread, channels)
    target, prediction = (rng.normal(size=(2, 100, channels)) * scales @ rng.normal(size=(channels, channels))).astype(
        np.float32
    )
    phi_s = fit(target)
    raw_error = np.square(prediction.astype(np.float64) - target).mean()
    stored_error = np.square(to_stored(phi_s, prediction).astype(np.float64) - to_stored(phi_s, target)).mean()
    np.testing.assert_allclose(stored_error, raw_error / phi_s.scale**2, rtol=1e-5)


@given(seed=st.integers(0, 2**31), spread=st.floats(0, 4), share=st.floats(0.2, 1))
def test_the_spatial_loss_in_phi_s_units_is_the_raw_one_over_phi_squared(
    seed: int, spread: float, share: float
) -> None:
    rng = np.random.default_rng(seed)
    mixing = np.logspace(0, -spread, 12)[:, None] * rng.normal(size=(12, 12))
    student, teacher = torch.from_numpy((rng.normal(size=(2, 2, 5, 5, 12)) @ mixing + 3).astype(np.float32))
    common = torch.from_numpy(rng.random((2, 5, 5)) <= share)
    common[:, 0, 0] = True
    phi_s = fit(teacher.reshape(-1, 12).numpy())
    stored = [torch.from_numpy(to_stored(phi_s, features.numpy())) for features in (student, teacher)]
    raw_loss, stored_loss = (spatial_mse(*pair, common).mean() for pair in ((student, teacher), stored))
    np.testing.assert_allclose(stored_loss, raw_loss / phi_s.scale**2, rtol=1e-4)


def test_two_rows_are_enough() -> None:
    phi_s = fit(np.array([[0, 0, 0, 0], [2, 0, 0, 0]], dtype=np.float32))
    assert phi_s.scale == pytest.approx(np.sqrt(0.5))
    np.testing.assert_allclose(np.abs(to_stored(phi_s, np.array([[2.0, 0, 0, 0]]))), np.sqrt(0.5), rtol=1e-6)


def test_stored_channels_mix_the_principal_axes_by_the_rows_of_the_hadamard_matrix() -> None:
    # axes e₁, e₀ by falling variance; the Hadamard matrix of order 2 is [[1, 1], [1, −1]] / √2
    phi_s = fit_phi_s(Moments(count=2, mean=np.zeros(2), scatter=np.diag([1.0, 3.0])))
    np.testing.assert_allclose(phi_s.rotation, np.array([[1, 1], [-1, 1]]) / np.sqrt(2), rtol=1e-12)
    assert phi_s.scale == pytest.approx(np.sqrt(2))


def test_moments_that_cannot_be_fitted_are_refused() -> None:
    alike = Moments(count=3, mean=np.ones(4), scatter=np.zeros((4, 4)))
    with pytest.raises(ContractError, match=r"scatter: the total variance is zero: all rows are alike$"):
        fit_phi_s(alike)
    single = Moments(count=1, mean=np.ones(4), scatter=np.zeros((4, 4)))
    with pytest.raises(ContractError, match=r"count: expected at least two rows for a variance, is 1$"):
        fit_phi_s(single)


def test_a_channel_count_without_a_hadamard_matrix_is_refused_with_its_neighbours() -> None:
    with pytest.raises(SettingError, match=r"order 3: .* \(the nearest that exist are 2 and 4\)$"):
        fit(np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32))
