"""PHI-S is an exact map and its inverse, and nothing that is not one can be held."""

import hashlib
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import ContractError
from storage_schemas.format.phi_s import PhiS, phi_s_digest, to_raw, to_stored


def map_of(channels: int, seed: int = 0) -> PhiS:
    """Return a PHI-S map with a random rotation."""
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.standard_normal((channels, channels)))
    return PhiS(mean=random.standard_normal(channels) * 3, rotation=rotation, scale=float(random.uniform(0.1, 10)))


def test_the_digest_is_that_of_mean_rotation_and_scale_as_little_endian_float64() -> None:
    # commit records carry it: another version must find the same
    phi_s = PhiS(mean=np.array([1.0, -2.0]), rotation=np.array([[0.0, 1.0], [1.0, 0.0]]), scale=0.5)
    body = struct.pack("<7d", 1, -2, 0, 1, 1, 0, 0.5)
    assert phi_s_digest(phi_s) == hashlib.sha256(body).hexdigest()
    assert phi_s_digest(replace(phi_s, scale=0.25)) != phi_s_digest(phi_s)


@given(st.integers(1, 24), st.integers(0, 5))
def test_what_is_stored_maps_back_to_the_raw_features(channels: int, seed: int) -> None:
    phi_s, random = map_of(channels, seed), np.random.default_rng(seed + 100)
    raw = random.standard_normal((2, 3, channels)).astype(np.float32) * 5
    stored = to_stored(phi_s, raw)
    assert (stored.shape, stored.dtype) == (raw.shape, np.float32)
    np.testing.assert_allclose(to_raw(phi_s, stored), raw, atol=2e-4)


@given(st.integers(1, 24), st.integers(0, 5))
def test_each_stored_vector_is_the_rotated_difference_from_the_mean_over_the_scale(channels: int, seed: int) -> None:
    phi_s, random = map_of(channels, seed), np.random.default_rng(seed + 100)
    raw = random.standard_normal((4, channels)).astype(np.float32)
    stored = to_stored(phi_s, raw)
    for row in range(4):
        expected = phi_s.rotation @ (raw[row].astype(np.float64) - phi_s.mean) / phi_s.scale
        np.testing.assert_allclose(stored[row], expected, rtol=1e-4, atol=1e-4)


def test_the_mean_is_stored_as_zero_and_zero_is_read_as_the_mean() -> None:
    phi_s = map_of(8)
    np.testing.assert_array_equal(to_stored(phi_s, phi_s.mean.astype(np.float32)), np.zeros(8))
    np.testing.assert_array_equal(to_raw(phi_s, np.zeros(8, np.float32)), phi_s.mean.astype(np.float32))


def test_half_precision_is_read_in_float32() -> None:
    phi_s = map_of(8)
    stored = np.linspace(-2, 2, 8).astype(np.float16)
    np.testing.assert_array_equal(to_raw(phi_s, stored), to_raw(phi_s, stored.astype(np.float32)))


def test_the_weights_are_float32_and_inverse_to_one_another() -> None:
    phi_s = map_of(16)
    assert phi_s.forward_weight.dtype == phi_s.inverse_weight.dtype == np.float32
    np.testing.assert_allclose(phi_s.forward_weight @ phi_s.inverse_weight, np.eye(16), atol=1e-5)


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"mean": np.array([0.0, NAN])}, "phi_s: mean or rotation holds NaN or infinity"),
        ({"rotation": np.array([[1.0, 0.0], [0.0, np.inf]])}, "phi_s: mean or rotation holds NaN or infinity"),
        ({"scale": 0.0}, "phi_s/scale: 0.0 is not a positive number"),
        ({"scale": -1.0}, "phi_s/scale: -1.0 is not a positive number"),
        ({"scale": NAN}, "phi_s/scale: nan is not a positive number"),
        ({"scale": np.inf}, "phi_s/scale: inf is not a positive number"),
    ],
)
def test_a_map_that_cannot_be_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ContractError) as refusal:
        replace(map_of(2), **change)
    assert str(refusal.value) == f"PHI-S breaks the storage contract:\n  {problem}"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (4,), (2,)])
def test_a_rotation_that_does_not_fit_the_mean_is_refused_where_no_checker_runs(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError) as refusal:
        replace(map_of(2), rotation=np.ones(shape))
    assert str(refusal.value) == (
        f"PHI-S breaks the storage contract:\n  phi_s/rotation: {shape} does not fit 2 channels"
    )


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ContractError) as refusal:
        PhiS(mean=np.array([NAN]), rotation=np.eye(1), scale=0.0)
    assert [problem.place for problem in refusal.value.problems] == ["phi_s", "phi_s/scale"]
