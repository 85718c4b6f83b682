"""Where the lines and ticks of plots lie."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.report.plots import MOST_POINTS, Line, linear_axis, log_axis, make_plot, thinned

values = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20)


def line(*points: tuple[float, float]) -> Line:
    return Line(label="a", colour=0, points=points)


@pytest.mark.parametrize(
    ("given", "ticks"),
    [
        ([0.6, 2.2], (0.5, 1.0, 1.5, 2.0, 2.5)),
        ([0, 10], (0, 2, 4, 6, 8, 10)),
        ([-3, 101], (-25, 0, 25, 50, 75, 100, 125)),
        ([1e-7, 3e-7], (1e-7, 1.5e-7, 2e-7, 2.5e-7, 3e-7)),
        ([7, 7 + 1e-14], (6.4, 6.6, 6.8, 7.0, 7.2, 7.4, 7.6)),
    ],
)
def test_a_linear_axis_runs_from_tick_to_tick(given: list[float], ticks: tuple[float, ...]) -> None:
    axis = linear_axis(given)
    assert axis.ticks == pytest.approx(ticks)
    assert (axis.place(axis.ticks[0]), axis.place(axis.ticks[-1])) == (0, 1)


@pytest.mark.parametrize(
    ("given", "ticks"),
    [([0.3, 22], (0.5, 1, 2, 5, 10, 20)), ([1, 1e6], tuple(10.0**power for power in range(7)))],
)
def test_a_logarithmic_axis_has_round_ticks(given: list[float], ticks: tuple[float, ...]) -> None:
    assert log_axis(given).ticks == pytest.approx(ticks)


def test_equal_factors_are_equal_lengths_on_a_logarithmic_axis() -> None:
    axis = log_axis([1, 100])
    assert axis.place(10) - axis.place(1) == pytest.approx(axis.place(100) - axis.place(10))


@given(values)
def test_every_value_and_tick_lies_on_its_axis(given: list[float]) -> None:
    for axis in (linear_axis(given), log_axis(given)):
        assert len(axis.ticks) >= 2
        for value in (*given, *axis.ticks):
            assert -1e-9 <= axis.place(value) <= 1 + 1e-9


def test_a_value_that_is_not_positive_makes_the_axis_linear_and_the_unit_says_so() -> None:
    assert make_plot("loss", "m", [line((1, 0.1), (2, 3.0))], log=True).unit == "m, log"
    zero = make_plot("loss", "m", [line((1, 0.0), (2, 3.0))], log=True)
    assert (zero.unit, zero.y.log) == ("m", False)


def test_a_reference_stays_in_sight() -> None:
    plot = make_plot("F", "", [line((0, 5.0), (10, 6.0))], reference=1.0)
    assert 0 <= plot.y.place(1.0) < plot.y.place(5.0)


def test_steps_start_at_zero_and_are_whole() -> None:
    assert make_plot("F", "", [line((1, 5.0), (4, 6.0))]).x.ticks == (0, 1, 2, 3, 4)
    assert make_plot("F", "", [line((0, 5.0))]).x.ticks == (0, 1)


def test_long_lines_are_means_of_neighbours() -> None:
    points = [(float(step), float(step % 2)) for step in range(4 * MOST_POINTS)]
    thin = thinned(points)
    assert len(thin) == MOST_POINTS
    assert thin[0] == (1.5, 0.5)
    assert math.fsum(x for x, _ in thin) / len(thin) == pytest.approx(points[-1][0] / 2)
    assert thinned(points[:MOST_POINTS]) == points[:MOST_POINTS]
