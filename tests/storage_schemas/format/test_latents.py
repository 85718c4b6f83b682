"""Latents hold features at the fidelity that was asked for, clip nothing, and are the same by NumPy and by torch."""

import numpy as np
import pytest
import torch

from pipeline.features.worker import encoded_latents
from pipeline.phi_s.hadamard import hadamard
from pipeline.phi_s.latents import latents_of
from storage_schemas.format.errors import ContractError
from storage_schemas.format.latents import (
    LEAST_DEVIATION,
    MOST_FIDELITY,
    REACH,
    Latents,
    fit_latents,
    from_latents,
    latents_digest,
    rounded_latents,
    to_latents,
)

CHANNELS = 64


def features(variances: np.ndarray, tokens: int = 4000) -> np.ndarray:
    """Return Gaussian tokens in PHI-S units whose latents have these variances."""
    latents = np.random.default_rng(0).standard_normal((tokens, len(variances))) * np.sqrt(variances)
    return (latents @ hadamard(len(variances)).T).astype(np.float32)


def spectrum(power: float) -> np.ndarray:
    """Return falling variances whose mean is 1."""
    variances = np.arange(1.0, CHANNELS + 1) ** -power
    return variances * CHANNELS / variances.sum()


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("fidelity", [10.0, 100.0, MOST_FIDELITY])
def test_features_are_stored_at_the_fidelity_that_was_asked_for(power: float, fidelity: float) -> None:
    numbers, latents = features(spectrum(power)), fit_latents(spectrum(power), hadamard(CHANNELS), fidelity)
    stored = to_latents(numbers, latents)
    assert (stored.dtype, stored.shape) == (np.int8, (4000, 1 + latents.kept))
    error = from_latents(stored, latents) - numbers
    assert fidelity < numbers.var() / np.mean(error**2) < 1.15 * fidelity
    assert stored.min() > -128


def test_latents_below_the_error_of_rounding_are_left_out_and_large_ones_have_doubled_steps() -> None:
    variances = spectrum(3.0)
    latents = fit_latents(variances, hadamard(CHANNELS), 300.0)
    step = latents.steps.min() * np.sqrt(CHANNELS)
    multiples = latents.steps * np.sqrt(CHANNELS) / step
    kept = np.sqrt(variances) > LEAST_DEVIATION * step
    assert latents.kept == kept.sum() < CHANNELS
    np.testing.assert_array_equal(np.log2(multiples), np.round(np.log2(multiples)))
    assert multiples[0] > 1
    deviations = np.sqrt(variances[kept])
    assert (127 * step * multiples >= REACH * deviations).all()
    assert ((multiples == 1) | (127 * step * multiples / 2 < REACH * deviations)).all()


def test_the_variances_of_latents_are_found_in_the_covariance() -> None:
    variances, mixing = spectrum(1.5), hadamard(CHANNELS)
    found = latents_of(mixing * variances @ mixing.T, 100.0)
    assert latents_digest(found)[:8] == latents_digest(found)[:8]
    expected = fit_latents(variances, mixing, 100.0)
    np.testing.assert_array_equal(found.basis, expected.basis)
    np.testing.assert_allclose(found.steps, expected.steps, rtol=1e-6)


def test_a_massive_token_is_not_clipped_and_leaves_the_others_as_they_are() -> None:
    variances = spectrum(1.0)
    latents, numbers = fit_latents(variances, hadamard(CHANNELS), 100.0), features(variances, 50)
    massive = numbers.copy()
    massive[7] *= 300
    before, after = to_latents(numbers, latents), to_latents(massive, latents)
    others = np.arange(50) != 7
    np.testing.assert_array_equal(after[others], before[others])
    assert (before[:, 0] == 0).all()
    assert after[7, 0] > 0
    assert np.abs(after[7, 1:]).max() > 63, "the smallest exponent that fits"
    error = from_latents(after, latents)[7] - massive[7]
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(massive[7])


def test_torch_rounds_as_numpy_does() -> None:
    rng = np.random.default_rng(1)
    in_steps = rng.standard_normal((3, 5, 5, 20)) * np.exp2(rng.integers(-3, 12, (3, 5, 5, 1)))
    in_steps[0, 0, 0, :4] = [127.5, -127.49999, 0.5, 1.5]
    in_steps[0, 0, 1] = 0
    single = in_steps.astype(np.float32)
    stored = encoded_latents(torch.from_numpy(single)).numpy()
    np.testing.assert_array_equal(stored, rounded_latents(single))
    assert stored.min() > -128
    assert np.moveaxis(stored, -1, 1).flags.c_contiguous, "chunks are laid out so"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("basis", "steps", "problem"),
    [
        (np.ones((2, 4), np.float64), np.ones(2), "basis: is not a matrix of 1 and"),
        (np.full((2, 4), 2, np.int8), np.ones(2), "basis: is not a matrix of 1 and"),
        (np.ones((2, 4), np.int8), np.ones(3), r"steps: \(3,\) do not fit a basis \(2, 4\)"),
        (np.ones((5, 4), np.int8), np.ones(5), "do not fit"),
        (np.ones((2, 4), np.int8), np.array([1.0, 0.0]), "steps: are not all positive and finite"),
    ],
)
def test_latents_that_cannot_be_are_refused(basis: np.ndarray, steps: np.ndarray, problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        Latents(basis=basis, steps=steps)
