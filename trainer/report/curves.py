"""The plots of one run: the loss and its parts over steps, and everything that evaluation measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from storage_schemas.format.views import ViewSet
from trainer.report.plots import Axis, Line, Plot, Points, log_axis, make_plot
from trainer.report.results import RunResult

_UNITS = {
    ("spatial", "mse"): "squared PHI-S units",
    ("spatial", "cosine"): "1 − cosine",
    ("spatial", "smooth"): "0.9 (1 − cosine) + 0.1 smooth L1",
    ("summary", "angle"): "angle² / dispersion",
    ("summary", "cosine"): "1 − cosine",
}
PARTITIONS = ("low", "high")
Score = Mapping[str, Any]
"""How a student matched one teacher, as `metrics.json` has it."""


def run_plots(one: RunResult, colours: Mapping[str, int]) -> list[Plot]:
    """Return the plots of a run, leaving out those that nothing was logged for yet.

    Args:
        one: the run.
        colours: number of each teacher's colour.
    """
    loss = _points(one.history, "loss")
    plots = [make_plot("Loss", "weighted sum", [Line(label="loss", colour=-1, points=loss)], log=True)] if loss else []
    for kind in ("spatial", "summary"):
        if lines := _parts(one, kind, colours):
            title = f"{kind.capitalize()} loss"
            plots.append(make_plot(title, _UNITS[kind, one.recipe["loss"][kind]], lines, log=True))
    if lines := _partitions(one, "mesa"):
        plots.append(make_plot("MESA", "squared LN units", lines, log=True))
    return [*plots, *_teacher_plots(one, colours), *_own_plots(one)]


def _teacher_plots(one: RunResult, colours: Mapping[str, int]) -> list[Plot]:
    """Return how the student matches its teachers: over steps, and, as it is now, over resolutions."""

    def lines(points: Callable[[str], Points]) -> list[Line]:
        scored = {name: points(name) for name in one.teachers}
        return [Line(label=name, colour=colours[name], points=found) for name, found in scored.items() if found]

    plots = []
    if fidelity := lines(lambda name: _scores(one, name, "fidelity")):
        plots.append(make_plot("Held-out fidelity", "F", fidelity, reference=1.0))
    if by_size := lines(lambda name: _resolutions(one, name)):
        sizes = sorted({size for line in by_size for size, _ in line.points})
        if len(sizes) > 1:
            x = Axis(low=sizes[0], high=sizes[-1], ticks=_spaced(sizes))
            title, step = "Fidelity by resolution", one.evaluations[-1]["step"]
            plots.append(make_plot(title, f"F, step {step}", by_size, reference=1.0, over="px", x=x))
    if angle := lines(lambda name: _scores(one, name, "angle")):
        plots.append(make_plot("Summary angle", "angle² / dispersion", angle, reference=1.0, log=True))
    return plots


def _own_plots(one: RunResult) -> list[Plot]:
    """Return what the student's own features are like."""

    def line(points: Points) -> list[Line]:
        return [Line(label=one.name, colour=-1, points=points)]

    plots = []
    if scale := _own(one, "scale"):
        plots.append(make_plot("Scale variance", "σ², 0 is perfect", line(scale)))
    if rank := _own(one, "effective_rank"):
        plots.append(make_plot("Effective rank", "directions", line(rank)))
    if one.evaluations:
        last = one.evaluations[-1]
        shares = [(int(count), share) for count, share in last["student"]["shares"].items()]
        if len(shares) > 1:
            x = log_axis([count for count, _ in shares])
            plots.append(
                make_plot("Spectrum", f"share, step {last['step']}", line(shares), over="first directions, log", x=x)
            )
    return plots


def _parts(one: RunResult, kind: str, colours: Mapping[str, int]) -> list[Line]:
    return [
        Line(label=name, colour=colours[name], dashed=partition == "high", points=points)
        for name in one.teachers
        for partition in PARTITIONS
        if (points := _points(one.history, f"{partition}/{name}/{kind}"))
    ]


def _points(history: Sequence[Mapping[str, str]], column: str) -> Points:
    return [(int(row["step"]), float(row[column])) for row in history if row.get(column)]


def _partitions(one: RunResult, kind: str) -> list[Line]:
    return [
        Line(label=kind, colour=-1, dashed=partition == "high", points=points)
        for partition in PARTITIONS
        if (points := _points(one.history, f"{partition}/{kind}"))
    ]


def _scores(one: RunResult, teacher: str, kind: str) -> Points:
    return _finite([(each["step"], each["teachers"][teacher][kind]) for each in one.evaluations])


def _resolutions(one: RunResult, teacher: str) -> Points:
    """Return a teacher's fidelity at each resolution, by the last evaluation."""
    sets = one.evaluations[-1]["teachers"][teacher]["sets"] if one.evaluations else {}
    return sorted(_finite([(ViewSet.parse(name).resolution, fidelity) for name, fidelity in sets.items()]))


def _own(one: RunResult, kind: str) -> Points:
    return _finite([(each["step"], each["student"][kind]) for each in one.evaluations])


def _finite(points: Sequence[tuple[int, float | None]]) -> Points:
    # a perfect match is infinite: the table says so, no axis can; and some scores do not exist
    return [(place, value) for place, value in points if value is not None and math.isfinite(value)]


def _spaced(sizes: Sequence[float]) -> tuple[float, ...]:
    """Return the sizes that have room for their numbers below an axis, largest and smallest among them."""
    room, spaced = (sizes[-1] - sizes[0]) / 8, [sizes[0]]
    for size in sizes[1:-1]:
        if min(size - spaced[-1], sizes[-1] - size) >= room:
            spaced.append(size)
    return (*spaced, sizes[-1])
