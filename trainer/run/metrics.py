"""The contents of `metrics.json`: facts about each teacher, and the student's scores by step."""

import math
from collections.abc import Mapping
from typing import Any

from trainer.data.source import Source, TeacherSource
from trainer.downstream.during_training import TASKS
from trainer.evaluation.evaluate import Scores
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.settings.config import TrainRecipe


def teacher_facts(source: Source) -> dict[str, Any]:
    """Return facts about each teacher from the cache, as JSON-ready values.

    Rows and bytes are those of the view sets that the run reads. Residuals are those of `make stats`, over all sets.
    """
    return {name: _facts(source, name, teacher) for name, teacher in source.teachers.items()}


def _facts(source: Source, name: str, teacher: TeacherSource) -> dict[str, Any]:
    spec, stats = teacher.manifest.spec, teacher.stats
    sets = [found for found in source.sets.values() if name in found.features]
    return {
        "model": spec.model,
        "licence": spec.licence,
        "random_weights": spec.random_weights,
        "channels": spec.dim,
        "summary_channels": spec.summary_dim,
        "rows": sum(len(rows) for found in sets for rows in found.rows.values()),
        "bytes": sum(found.features[name].commits.array_bytes() for found in sets),
        "mean_residual": stats.pooled.mean_residual,
        "variance_residual": stats.pooled.variance_residual,
        "dispersion": stats.dispersion,
    }


def start_metrics(run: RunFolder, about: Mapping[str, Any], start: int) -> None:
    """Write the metrics of a run that starts or resumes. Scores after the start are dropped: they will be made again.

    Args:
        run: the run's folder.
        about: values that do not change during the run.
        start: the step after which the run starts.
    """
    before = read_json(run.metrics) if start and run.metrics.exists() else {"evaluations": []}
    kept: dict[str, Any] = {
        name: [evaluation for evaluation in before[name] if evaluation["step"] <= start]
        for name in ("evaluations", "tasks")
        if name in before
    }
    write_json(run.metrics, {**about, **kept})


def add_scores(run: RunFolder, step: int, scores: Scores) -> None:
    """Add the scores of a step, or replace those of the same step."""
    metrics = read_json(run.metrics)
    others = [evaluation for evaluation in metrics["evaluations"] if evaluation["step"] != step]
    teachers = {name: score.attributes() for name, score in scores.teachers.items()}
    evaluation = {"step": step, "teachers": teachers, "student": scores.student.attributes()}
    write_json(run.metrics, {**metrics, "evaluations": [*others, evaluation]})


def is_scored(run: RunFolder, step: int) -> bool:
    """Return whether the metrics have the scores of a step."""
    return any(evaluation["step"] == step for evaluation in read_json(run.metrics)["evaluations"])


def add_task_scores(run: RunFolder, step: int, scores: Mapping[str, float]) -> None:
    """Add the scores of the tasks at a step, or replace those of the same step.

    Args:
        run: the run's folder.
        step: the step.
        scores: by task and view set, such as `knn/low-256`.
    """
    metrics = read_json(run.metrics)
    others = [measured for measured in metrics.get("tasks", []) if measured["step"] != step]
    write_json(run.metrics, {**metrics, "tasks": [*others, {"step": step, "scores": dict(scores)}]})


def has_task_scores(run: RunFolder, step: int) -> bool:
    """Return whether the metrics have scores of the tasks at a step."""
    return any(measured["step"] == step for measured in read_json(run.metrics).get("tasks", []))


def score_values(scores: Scores) -> dict[str, float]:
    """Return scores by the names of their columns in the history."""
    values = {"effective_rank": scores.student.effective_rank}
    if scores.student.scale_variance is not None:
        values["scale_variance"] = scores.student.scale_variance
    for name, teacher in scores.teachers.items():
        values |= {f"fidelity/{name}": teacher.fidelity, f"phi_fidelity/{name}": teacher.phi_fidelity}
        values |= {f"fidelity/{name}/{set_name}": fidelity for set_name, fidelity in teacher.sets.items()}
        if teacher.angle is not None:
            values |= {f"angle/{name}": teacher.angle}
    return values


def history_columns(recipe: TrainRecipe, source: Source) -> list[str]:
    """Return the names of all columns of the history, without the step."""
    stored = [
        (view_set, name, features)
        for view_set, set_source in source.sets.items()
        for name, features in set_source.features.items()
    ]
    parts = {
        f"{view_set.partition}/{name}/{kind}"
        for view_set, name, features in stored
        for kind in ("spatial", *(["summary"] if features.has_summary else []))
    }
    if recipe.average.mesa_weight:
        parts |= {f"{view_set.partition}/mesa" for view_set in source.sets}
    by_set = sorted(f"fidelity/{name}/{view_set.name}" for view_set, name, _ in stored)
    specs = {name: teacher.manifest.spec for name, teacher in source.teachers.items()}
    angles = [f"angle/{name}" for name, spec in specs.items() if spec.summary_dim is not None]
    fidelities = [f"{kind}/{name}" for name in source.teachers for kind in ("fidelity", "phi_fidelity")]
    tasks = [f"{task}/{view_set.name}" for task in TASKS for view_set in source.sets] if recipe.running.labels else []
    scores = [*fidelities, *by_set, *angles, "effective_rank", "scale_variance", *tasks]
    return ["loss", "lr", "views_per_second", "wait_share", *sorted(parts), *scores]


def has_stalled(run: RunFolder, patience: int) -> bool:
    """Return whether none of the last `patience` evaluations was better than all evaluations before them.

    The value of an evaluation is the mean over teachers of the logarithm of fidelity.

    Args:
        run: the run's folder.
        patience: number of evaluations; 0 switches early stopping off.
    """
    if not patience or not run.metrics.exists():
        return False
    evaluations = [evaluation["teachers"].values() for evaluation in read_json(run.metrics)["evaluations"]]
    scores = [sum(math.log(teacher["fidelity"]) for teacher in found) / len(found) for found in evaluations]
    return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])


def add_speed(run: RunFolder, views_per_second: float, wait_share: float) -> None:
    """Add the speed of the run, over the steps since it last started or resumed."""
    speed = {"views_per_second": views_per_second, "wait_share": wait_share}
    write_json(run.metrics, {**read_json(run.metrics), "speed": speed})
