"""The plots of one run: the loss and its parts, and fidelity, over steps."""

import math
from collections.abc import Mapping, Sequence

from trainer.report.plots import Line, Plot, Points, make_plot
from trainer.report.results import RunResult

_UNITS = {
    ("spatial", "mse"): "squared PHI-S units",
    ("spatial", "cosine"): "1 − cosine",
    ("summary", "angle"): "angle² / dispersion",
    ("summary", "cosine"): "1 − cosine",
}
PARTITIONS = ("low", "high")


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
    scored = {name: _scores(one, name) for name in one.teachers}
    if lines := [Line(label=name, colour=colours[name], points=points) for name, points in scored.items() if points]:
        plots.append(make_plot("Held-out fidelity", "F", lines, reference=1.0))
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


def _scores(one: RunResult, teacher: str) -> Points:
    scores = [(each["step"], each["teachers"][teacher]["fidelity"]) for each in one.evaluations]
    # a perfect match is infinite: the table says so, no axis can
    return [(step, score) for step, score in scores if math.isfinite(score)]
