"""Feature maps as colours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.report.pca import fit_projection

SIDE = 16


def planes() -> list[np.ndarray]:
    """Three maps of falling variance, no two of which go together: down, across, and a chessboard."""
    ramp = np.linspace(-1, 1, SIDE)
    down, across = np.repeat(ramp[:, None], SIDE, axis=1), np.repeat(ramp[None], SIDE, axis=0)
    board = (-1.0) ** np.add.outer(np.arange(SIDE), np.arange(SIDE))
    return [4 * down, 2 * across, 0.5 * board]


def orthogonal(channels: int, seed: int = 0) -> np.ndarray:
    """Three orthogonal directions as rows, the largest entry of each positive."""
    rows = np.linalg.qr(np.random.default_rng(seed).normal(size=(channels, 3)))[0].T
    return np.stack([row if row[np.argmax(np.abs(row))] > 0 else -row for row in rows])


def light(plane: np.ndarray) -> np.ndarray:
    low, high = np.quantile(plane, [0.02, 0.98])
    return np.clip((plane - low) / (high - low), 0, 1) * 255


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_three_orthogonal_planes_become_red_green_and_blue(dtype: type) -> None:
    features = np.einsum("prc,pk->rck", np.stack(planes()), orthogonal(7)) + 3.0
    projection = fit_projection([features.astype(dtype)])
    expected = np.stack([light(plane) for plane in planes()], axis=2)
    assert np.abs(projection.colours(features.astype(dtype)) - expected).max() <= 1.0


def test_the_colours_of_a_map_are_fitted_over_all_maps_together() -> None:
    down, *_ = planes()
    features = down[..., None] * orthogonal(5)[0]
    projection = fit_projection([features[: SIDE // 2].astype(np.float32), features[SIDE // 2 :].astype(np.float32)])
    reds = projection.colours(features.astype(np.float32))[..., 0]
    assert reds[0, 0] == 0
    assert reds[-1, 0] == 255
    assert np.abs(reds - light(down)).max() <= 1.0


def test_a_component_that_says_nothing_is_half_light() -> None:
    down, across, _ = planes()
    features = np.einsum("prc,pk->rck", np.stack([down, across]), orthogonal(5)[:2]).astype(np.float32)
    assert (fit_projection([features]).colours(features)[..., 2] == 128).all()
    constant = np.full((3, 3, 5), 2.5, dtype=np.float32)
    assert (fit_projection([constant]).colours(constant) == 128).all()


def test_a_teacher_of_two_channels_has_two_colours() -> None:
    down, across, _ = planes()
    features = np.stack([across, down], axis=2).astype(np.float32)
    colours = fit_projection([features]).colours(features)
    expected = np.stack([light(down), light(across), np.full_like(down, 128)], axis=2)
    assert np.abs(colours - expected).max() <= 1.0


def test_features_beyond_the_teachers_range_are_clipped() -> None:
    down, *_ = planes()
    features = (down[..., None] * orthogonal(5)[0]).astype(np.float32)
    projection = fit_projection([features])
    assert set(projection.colours(100 * features)[..., 0].ravel().tolist()) == {0, 255}


@given(seed=st.integers(0, 1000), channels=st.integers(3, 12))
def test_the_largest_entry_of_every_axis_is_positive(seed: int, channels: int) -> None:
    features = np.random.default_rng(seed).normal(size=(5, 5, channels)).astype(np.float32)
    for axis in fit_projection([features]).axes.T:
        assert axis[np.argmax(np.abs(axis))] > 0
