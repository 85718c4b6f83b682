import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stats.dispersion import (
    AngleSum,
    DirectionSum,
    angles_between,
    dispersion,
    mean_direction,
    merge_angles,
    merge_directions,
    observe_angles,
    observe_direction,
)
from storage_schemas.format.errors import ContractError


def two_passes(summaries: np.ndarray) -> float:
    return dispersion(observe_angles(summaries, observe_direction(summaries)))


def about(summaries: np.ndarray, direction: np.ndarray) -> float:
    """The mean squared angle of unit vectors to one direction."""
    return float(np.mean(angles_between(summaries, direction) ** 2))


AXIS_OF_CONES = np.array([0.0, 0.0, 1.0])


def on_the_sphere(polar_cosines: np.ndarray, turns: int) -> np.ndarray:
    """Unit vectors at these angles to the third axis, spread evenly around it."""
    around = np.arange(turns) * 2 * np.pi / turns
    sines = np.sqrt(1 - polar_cosines**2)
    x, y = np.outer(sines, np.cos(around)), np.outer(sines, np.sin(around))
    return np.stack([x, y, np.broadcast_to(polar_cosines[:, None], x.shape)], axis=-1).reshape(-1, 3)


def evenly_between(low: float, high: float, count: int) -> np.ndarray:
    return low + (high - low) * (np.arange(count) + 0.5) / count


@pytest.mark.parametrize("radius", [1e-4, 0.1, 1.0, 1.5])
def test_the_mantle_of_a_cone_has_its_radius_squared_as_dispersion(radius: float) -> None:
    mantle = on_the_sphere(np.cos([radius]), turns=7)
    assert about(mantle, AXIS_OF_CONES) == pytest.approx(radius**2, rel=1e-6)
    np.testing.assert_allclose(mean_direction(observe_direction(mantle)), AXIS_OF_CONES, atol=1e-9)


@pytest.mark.parametrize("radius", [0.1, 1.0, 2.0, 3.0])
def test_a_filled_cone_on_the_sphere_has_the_dispersion_of_its_integral(radius: float) -> None:
    # ∫₀ʳ θ² sin θ dθ / (1 − cos r); equal areas are equal steps of the cosine
    integral = -(radius**2) * math.cos(radius) + 2 * radius * math.sin(radius) + 2 * math.cos(radius) - 2
    filled = on_the_sphere(evenly_between(math.cos(radius), 1, 200_000), turns=2)
    assert about(filled, AXIS_OF_CONES) == pytest.approx(integral / (1 - math.cos(radius)), abs=1e-6)
    if radius < 3:  # nearly the whole sphere has hardly a mean direction, so even one vector of 400,000 moves it
        assert two_passes(filled) == pytest.approx(integral / (1 - math.cos(radius)), abs=1e-4)


def test_the_whole_sphere_has_the_dispersion_of_its_integral_about_any_direction() -> None:
    sphere = on_the_sphere(evenly_between(-1, 1, 200_000), turns=2)
    assert about(sphere, AXIS_OF_CONES) == pytest.approx((np.pi**2 - 4) / 2, abs=1e-6)


def test_the_circle_has_a_third_of_pi_squared() -> None:
    angles = evenly_between(-np.pi, np.pi, 100_000)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert about(circle, np.array([1.0, 0.0])) == pytest.approx(np.pi**2 / 3, abs=1e-6)


def by_naive_loops(summaries: np.ndarray) -> float:
    rows = summaries.tolist()
    mean = [sum(row[channel] for row in rows) for channel in range(len(rows[0]))]
    total = 0.0
    for row in rows:
        dot = squared_row = squared_mean = 0.0
        for a, whole in zip(row, mean, strict=True):
            b = whole - a  # the others
            dot, squared_row, squared_mean = dot + a * b, squared_row + a * a, squared_mean + b * b
        total += math.acos(dot / math.sqrt(squared_row * squared_mean)) ** 2
    return total / len(rows)


@given(seed=st.integers(0, 2**31), channels=st.integers(2, 40), offset=st.floats(0, 3))
def test_dispersion_agrees_with_naive_loops(seed: int, channels: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.1, 100, size=(50, 1))
    summaries = (lengths * (offset + rng.normal(size=(50, channels)))).astype(np.float32)
    assert two_passes(summaries) == pytest.approx(by_naive_loops(summaries), abs=1e-6)


@pytest.mark.parametrize("count", [100, 1_000])
def test_few_uniform_directions_have_the_dispersion_of_many(count: int) -> None:
    draws = np.random.default_rng(0)
    found = np.mean([two_passes(draws.normal(size=(count, 1024)).astype(np.float32)) for _ in range(3)])
    assert found == pytest.approx((np.pi / 2) ** 2, abs=0.03)


def test_a_summary_is_compared_with_the_others_alone() -> None:
    pair = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert two_passes(pair) == pytest.approx((np.pi / 4) ** 2)
    three = np.array([[1.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    angles = [math.atan2(4, 2), math.atan2(3, 2), 0.0]
    angles[1], angles[2] = np.pi / 2 - math.atan2(2, 3), np.pi / 4 - math.atan2(1, 2)
    assert two_passes(three) == pytest.approx(np.mean(np.square(np.abs(angles))))


def test_long_vectors_weigh_more_in_the_mean_direction() -> None:
    direction = mean_direction(observe_direction(np.array([[3.0, 0.0], [0.0, 4.0]])))
    np.testing.assert_allclose(direction, [0.6, 0.8])


@pytest.mark.parametrize("angle", [1e-9, 1e-6, np.pi - 1e-6, np.pi - 1e-9])
def test_angles_are_exact_next_to_zero_and_next_to_pi(angle: float) -> None:
    summary = np.array([[np.cos(angle), np.sin(angle)]])
    [found] = angles_between(summary, np.array([1.0, 0.0]))
    assert found == pytest.approx(angle, rel=1e-6)
    assert np.pi - found == pytest.approx(np.pi - angle, rel=1e-6)


@given(cuts=st.lists(st.integers(1, 199), max_size=6), order=st.randoms(use_true_random=False))
def test_both_passes_merge_to_the_same_however_split_and_in_any_order(cuts: list[int], order: random.Random) -> None:
    summaries = (1 + np.random.default_rng(0).normal(size=(200, 16))).astype(np.float32)
    parts = np.split(summaries, sorted(set(cuts)))
    order.shuffle(parts)
    directions = observe_direction(parts[0])
    for part in parts[1:]:
        directions = merge_directions(directions, observe_direction(part))
    angles = observe_angles(parts[0], directions)
    for part in parts[1:]:
        angles = merge_angles(angles, observe_angles(part, directions))
    assert (directions.count, angles.count) == (200, 200)
    assert dispersion(angles) == pytest.approx(two_passes(summaries), rel=1e-12)


WITH_BAD_ROWS = np.ones((5, 2), dtype=np.float32)
WITH_BAD_ROWS[1:3] = [[np.nan, 1], [1, -np.inf]]
WITH_ZEROS = np.ones((5, 2), dtype=np.float32)
WITH_ZEROS[4] = 0
ALL = DirectionSum(count=9, total=np.array([9.0, 1.0]), length=10.0)
OPPOSED = np.array([[0.1, 0.7], [0.2, -0.3], [-0.3, -0.4]])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: observe_direction(WITH_BAD_ROWS), "A summary array: rows 1, 2: NaN or infinity in 2 of 5 rows"),
        (lambda: observe_angles(WITH_BAD_ROWS, ALL), "A summary array: rows 1, 2: NaN or infinity in 2 of 5 rows"),
        (lambda: observe_direction(WITH_ZEROS), "A summary array: rows 4: a vector of length zero in 1 of 5 rows"),
        (lambda: observe_angles(WITH_ZEROS, ALL), "A summary array: rows 4: a vector of length zero in 1 of 5 rows"),
        (
            lambda: mean_direction(observe_direction(OPPOSED)),
            "DirectionSum: total: the sum of 3 vectors is zero: it has no direction",
        ),
        (
            lambda: mean_direction(DirectionSum(count=0, total=np.zeros(2), length=0.0)),
            "DirectionSum: total: no training view has a summary: cut views with a smaller held-out share",
        ),
        (
            lambda: merge_directions(
                observe_direction(np.ones((1, 2))), observe_direction(np.ones((1, 3), dtype=np.float32))
            ),
            "DirectionSum: channels: 2 and 3 cannot be merged",
        ),
        (
            lambda: dispersion(AngleSum(count=0, squares=0.0)),
            "AngleSum: count: expected at least one summary, there are none",
        ),
        (
            lambda: two_passes(np.ones((1, 2))),
            "A summary array: rows 0: a vector without others that have a mean direction in 1 of 1 rows",
        ),
        (
            lambda: two_passes(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])),
            "A summary array: rows 0: a vector without others that have a mean direction in 1 of 3 rows",
        ),
        (
            lambda: two_passes(np.tile([2.0, 0.0], (4, 1))),
            "AngleSum: squares: 0 rad²: all 4 vectors point the same way",
        ),
    ],
)
def test_summaries_without_a_dispersion_are_refused(step: Callable[[], object], message: str) -> None:
    with pytest.raises(ContractError) as refusal:
        step()
    subject, _, problem = message.partition(": ")
    assert str(refusal.value) == f"{subject} breaks the storage contract:\n  {problem}"
