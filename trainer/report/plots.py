"""The layout of plots: lines, axes and ticks. The template of the page draws them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

Points = Sequence[tuple[float, float]]
MOST_POINTS = 240
"""Largest number of points of a line. If there are more, groups of neighbours are averaged."""
_TICKS = 5
"""Approximate number of ticks of an axis."""
_ROUNDING = 1e-6
"""Part of a tick's distance by which rounding may move a value."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve."""

    label: str
    colour: int
    """Number of its colour on the page; -1 for the colour of text."""
    dashed: bool = False
    points: Points
    """(step, value), by step; at least one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The text of each tick, with as many digits as it takes to tell the ticks apart."""
        for digits in range(3, 16):
            texts = tuple(f"{tick:.{digits}g}".replace("-", "−") for tick in self.ticks)
            if len(set(texts)) == len(texts):
                break
        return texts

    def place(self, value: float) -> float:
        """Return the position of a value: 0 at the low end, 1 at the high end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Some curves, usually over steps."""

    title: str
    unit: str
    """Unit of the values, followed by `log` if the axis is logarithmic."""
    lines: tuple[Line, ...]
    x: Axis
    y: Axis
    reference: float | None = None
    """A value that is marked with a horizontal line."""
    over: str = "step"
    """Name of the other axis."""


def make_plot(
    title: str,
    unit: str,
    lines: Sequence[Line],
    *,
    log: bool = False,
    reference: float | None = None,
    over: str = "step",
    x: Axis | None = None,
) -> Plot:
    """Lay out a plot.

    Args:
        title: title of the plot.
        unit: unit of the values.
        lines: at least one.
        log: whether the axis of values is logarithmic; it is linear nevertheless if a value is not positive.
        reference: a value to mark with a horizontal line, always inside the plot.
        over: name of the other axis.
        x: the other axis; None for an axis of steps.
    """
    thin = tuple(
        Line(label=line.label, colour=line.colour, dashed=line.dashed, points=thinned(line.points)) for line in lines
    )
    steps = [step for line in thin for step, _ in line.points]
    values = [value for line in thin for _, value in line.points] + ([] if reference is None else [reference])
    y = log_axis(values) if log and min(values) > 0 else linear_axis(values)
    if x is None:
        x = Axis(low=0, high=max(*steps, 1), ticks=tuple(_steps_of(0, max(*steps, 1))))
    unit = f"{unit}, log" if y.log else unit
    return Plot(title=title, unit=unit, lines=thin, x=x, y=y, reference=reference, over=over)


def thinned(points: Points) -> Points:
    """Return the points, or means of groups of neighbours if there are more than `MOST_POINTS`."""
    group = -(-len(points) // MOST_POINTS)
    parts = [points[first : first + group] for first in range(0, len(points), group)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def linear_axis(values: Iterable[float]) -> Axis:
    """Return a linear axis around the values that begins and ends at a tick."""
    low, high = _apart(*_ends(values))
    step = _nice_step((high - low) / _TICKS)
    # an end that rounding has moved past a tick needs no further one: shares end at 1, not at 1.2
    first, last = math.floor(low / step + _ROUNDING), math.ceil(high / step - _ROUNDING)
    ticks = tuple(number * step for number in range(first, last + 1))
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks)


def log_axis(values: Iterable[float]) -> Axis:
    """Return a logarithmic axis around positive values, with ticks at 1, 2 and 5 times powers of ten."""
    low, high = _ends(values)
    low, high = low / 1.1, high * 1.1
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 500 else (1,)
    marks = (factor * 10.0**power for power in powers for factor in factors)
    ticks = tuple(mark for mark in marks if low <= mark <= high)
    return Axis(low=low, high=high, ticks=ticks if len(ticks) > 1 else (low, high), log=True)


def spaced_ticks(sizes: Sequence[float]) -> tuple[float, ...]:
    """Return the sizes that can be labelled on an axis without overlap, always with the smallest and the largest."""
    room, spaced = (sizes[-1] - sizes[0]) / 8, [sizes[0]]
    for size in sizes[1:-1]:
        if min(size - spaced[-1], sizes[-1] - size) >= room:
            spaced.append(size)
    return (*spaced, sizes[-1])


def _ends(values: Iterable[float]) -> tuple[float, float]:
    listed = list(values)
    return min(listed), max(listed)


def _apart(low: float, high: float) -> tuple[float, float]:
    # values that differ only by rounding count as equal
    return (low, high) if high - low > 1e-9 * max(abs(low), abs(high)) else (low - 0.5, high + 0.5)


def _steps_of(low: float, high: float) -> Iterable[float]:
    step = max(_nice_step((high - low) / _TICKS), 1)
    return (number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1))


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
