"""The plots of one run: the loss and its terms over steps, and the scores of all evaluations."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from storage_schemas.format.views import ViewSet
from trainer.report.plots import Axis, Line, Plot, Points, log_axis, make_plot, spaced_ticks
from trainer.report.results import RunResult

_UNITS = {
    ("spatial", "mse"): "squared PHI-S units",
    ("spatial", "cosine"): "1 − cosine",
    ("spatial", "smooth"): "0.9 (1 − cosine) + 0.1 smooth L1",
    ("summary", "angle"): "angle² / dispersion",
    ("summary", "cosine"): "1 − cosine",
}
SET_COLOURS = 8
"""Colours of view sets; a ninth view set gets the colour of the first."""
PARTITIONS = ("low", "high")
Score = Mapping[str, Any]
"""How well a student matches one teacher, as in `metrics.json`."""


def run_plots(result: RunResult, colours: Mapping[str, int]) -> list[Plot]:
    """Return the plots of a run, without plots that have no data yet.

    Args:
        result: the run.
        colours: number of each teacher's colour.
    """
    loss = points_of(result.history, "loss")
    plots = [make_plot("Loss", "weighted sum", [Line(label="loss", colour=-1, points=loss)], log=True)] if loss else []
    for kind in ("spatial", "summary"):
        if lines := _parts(result, kind, colours):
            title = f"{kind.capitalize()} loss"
            plots.append(make_plot(title, _UNITS[kind, result.recipe["loss"][kind]], lines, log=True))
    if lines := _partitions(result, "mesa"):
        plots.append(make_plot("MESA", "squared LN units", lines, log=True))
    return [*plots, *_teacher_plots(result, colours), *_own_plots(result), *_task_plots(result)]


def _teacher_plots(result: RunResult, colours: Mapping[str, int]) -> list[Plot]:
    """Return plots of how well the student matches its teachers, over steps and over resolutions."""

    def lines(points: Callable[[str], Points]) -> list[Line]:
        scored = {name: points(name) for name in result.teachers}
        return [Line(label=name, colour=colours[name], points=found) for name, found in scored.items() if found]

    plots = []
    if fidelity := lines(lambda name: score_points(result, name, "fidelity")):
        plots.append(make_plot("Held-out fidelity", "F", fidelity, reference=1.0))
    if by_size := lines(lambda name: resolution_points(result, name)):
        sizes = sorted({size for line in by_size for size, _ in line.points})
        if len(sizes) > 1:
            x = Axis(low=sizes[0], high=sizes[-1], ticks=spaced_ticks(sizes))
            title, step = "Fidelity by resolution", result.evaluations[-1]["step"]
            plots.append(make_plot(title, f"F, step {step}", by_size, reference=1.0, over="px", x=x))
    if angle := lines(lambda name: score_points(result, name, "angle")):
        plots.append(make_plot("Summary angle", "angle² / dispersion", angle, reference=1.0, log=True))
    return plots


def _own_plots(result: RunResult) -> list[Plot]:
    """Return plots of the statistics of the student's own features."""

    def line(points: Points) -> list[Line]:
        return [Line(label=result.name, colour=-1, points=points)]

    plots = []
    if scale := own_points(result, "scale"):
        plots.append(make_plot("Scale variance", "σ², 0 is perfect", line(scale)))
    if rank := own_points(result, "effective_rank"):
        plots.append(make_plot("Effective rank", "directions", line(rank)))
    if result.evaluations:
        last = result.evaluations[-1]
        shares = [(int(count), share) for count, share in last["student"]["shares"].items()]
        if len(shares) > 1:
            x = log_axis([count for count, _ in shares])
            plots.append(
                make_plot("Spectrum", f"share, step {last['step']}", line(shares), over="first directions, log", x=x)
            )
    return plots


def _task_plots(result: RunResult) -> list[Plot]:
    """Return a plot of the accuracies of each task, with a line for each view set."""
    tasks: dict[str, list[Line]] = {}
    for name in task_names([result]):
        task, _, view_set = name.partition("/")
        of_task = tasks.setdefault(task, [])
        of_task.append(Line(label=view_set, colour=len(of_task) % SET_COLOURS, points=task_points(result, name)))
    return [make_plot(f"{task} during training", "accuracy", lines) for task, lines in tasks.items()]


def _parts(result: RunResult, kind: str, colours: Mapping[str, int]) -> list[Line]:
    return [
        Line(label=name, colour=colours[name], dashed=partition == "high", points=points)
        for name in result.teachers
        for partition in PARTITIONS
        if (points := points_of(result.history, f"{partition}/{name}/{kind}"))
    ]


def points_of(history: Sequence[Mapping[str, str]], column: str) -> Points:
    """Return a column of a history by step, without steps that have no value."""
    return [(int(row["step"]), float(row[column])) for row in history if row.get(column)]


def _partitions(result: RunResult, kind: str) -> list[Line]:
    return [
        Line(label=kind, colour=-1, dashed=partition == "high", points=points)
        for partition in PARTITIONS
        if (points := points_of(result.history, f"{partition}/{kind}"))
    ]


def score_points(result: RunResult, teacher: str, kind: str) -> Points:
    """Return a score of a teacher by step: `fidelity` or `angle`."""
    return _finite([(evaluation["step"], evaluation["teachers"][teacher][kind]) for evaluation in result.evaluations])


def resolution_points(result: RunResult, teacher: str) -> Points:
    """Return the fidelity to a teacher at each resolution, at the last evaluation."""
    sets = result.evaluations[-1]["teachers"][teacher]["sets"] if result.evaluations else {}
    return sorted(_finite([(ViewSet.parse(name).resolution, fidelity) for name, fidelity in sets.items()]))


def task_names(results: Sequence[RunResult]) -> list[str]:
    """Return the tasks that runs measured during training, each with its view set: `knn/low-256`."""
    return sorted({name for result in results for measured in result.tasks for name in measured["scores"]})


def task_points(result: RunResult, name: str) -> Points:
    """Return an accuracy that was measured during training by step; see `task_names`."""
    return [(measured["step"], measured["scores"][name]) for measured in result.tasks if name in measured["scores"]]


def own_points(result: RunResult, kind: str) -> Points:
    """Return a statistic of the student's own features by step: `scale` or `effective_rank`."""
    return _finite([(evaluation["step"], evaluation["student"][kind]) for evaluation in result.evaluations])


def _finite(points: Sequence[tuple[int, float | None]]) -> Points:
    # the fidelity of a perfect match is infinite and has no place on an axis; and some scores are None
    return [(place, value) for place, value in points if value is not None and math.isfinite(value)]
