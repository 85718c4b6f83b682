"""What a run measured, as `metrics.json` holds it: facts about each teacher, and the student's scores by step."""

import math
from collections.abc import Mapping
from typing import Any

from trainer.data.source import Source, TeacherSource
from trainer.evaluation.evaluate import Scores
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.settings.config import TrainRecipe


def teacher_facts(source: Source) -> dict[str, Any]:
    """Return what the cache says of each teacher, as JSON-ready values.

    Rows and bytes are those of the sets that the run reads; residuals are those of `make stats`, over everything.
    """
    return {name: _facts(source, name, teacher) for name, teacher in source.teachers.items()}


def _facts(source: Source, name: str, teacher: TeacherSource) -> dict[str, Any]:
    spec, stats = teacher.manifest.spec, teacher.stats
    commits = [one.features[name].commits for one in source.sets.values() if name in one.features]
    records = [record for by_shard in commits for parts in by_shard.values() for record in parts if record.array]
    return {
        "model": spec.model,
        "licence": spec.licence,
        "random_weights": spec.random_weights,
        "channels": spec.dim,
        "summary_channels": spec.summary_dim,
        "rows": sum(record.rows for record in records if record.array.endswith("/spatial")),
        "bytes": sum(record.bytes for record in records),
        "mean_residual": stats.pooled.mean_residual,
        "variance_residual": stats.pooled.variance_residual,
        "dispersion": stats.dispersion,
    }


def start_metrics(run: RunFolder, about: Mapping[str, Any], start: int) -> None:
    """Write the metrics of a run that starts, or goes on: scores beyond its start are dropped, for they come again.

    Args:
        run: the run's folder.
        about: what does not change over the run.
        start: steps behind it.
    """
    before = read_json(run.metrics)["evaluations"] if start and run.metrics.exists() else []
    kept = [one for one in before if one["step"] <= start]
    write_json(run.metrics, {**about, "evaluations": kept})


def add_scores(run: RunFolder, step: int, scores: Scores) -> None:
    """Add the scores of a step; those of the same step that were there are replaced."""
    metrics = read_json(run.metrics)
    others = [one for one in metrics["evaluations"] if one["step"] != step]
    teachers = {name: score.attributes() for name, score in scores.teachers.items()}
    found = {"step": step, "teachers": teachers, "student": scores.student.attributes()}
    write_json(run.metrics, {**metrics, "evaluations": [*others, found]})


def score_values(scores: Scores) -> dict[str, float]:
    """Return scores as the history's columns."""
    values = {"effective_rank": scores.student.effective_rank}
    if scores.student.scale_variance is not None:
        values["scale_variance"] = scores.student.scale_variance
    for name, one in scores.teachers.items():
        values |= {f"fidelity/{name}": one.fidelity}
        values |= {f"fidelity/{name}/{held}": each for held, each in one.sets.items()}
        if one.angle is not None:
            values |= {f"angle/{name}": one.angle}
    return values


def history_columns(recipe: TrainRecipe, source: Source) -> list[str]:
    """Name every value that the history may hold, without the step."""
    seen = [(view_set, name, one) for view_set, held in source.sets.items() for name, one in held.features.items()]
    parts = {
        f"{view_set.partition}/{name}/{kind}"
        for view_set, name, one in seen
        for kind in ("spatial", *(["summary"] if one.has_summary else []))
    }
    if recipe.average.mesa_weight:
        parts |= {f"{view_set.partition}/mesa" for view_set in source.sets}
    by_set = sorted(f"fidelity/{name}/{view_set.name}" for view_set, name, _ in seen)
    angles = [f"angle/{name}" for name, one in source.teachers.items() if one.manifest.spec.summary_dim is not None]
    scores = [*(f"fidelity/{name}" for name in source.teachers), *by_set, *angles, "effective_rank", "scale_variance"]
    return ["loss", "lr", "views_per_second", "wait_share", *sorted(parts), *scores]


def has_stalled(run: RunFolder, patience: int) -> bool:
    """Say whether the last evaluations, `patience` of them, were all no better than one before.

    An evaluation is as good as the mean over teachers of the logarithm of fidelity.

    Args:
        run: the run's folder.
        patience: evaluations; 0 for endless patience.
    """
    if not patience or not run.metrics.exists():
        return False
    found = [one["teachers"].values() for one in read_json(run.metrics)["evaluations"]]
    scores = [sum(math.log(one["fidelity"]) for one in teachers) / len(teachers) for teachers in found]
    return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])


def add_speed(run: RunFolder, views_per_second: float, wait_share: float) -> None:
    """Add how fast the run went, over the steps of its last process."""
    speed = {"views_per_second": views_per_second, "wait_share": wait_share}
    write_json(run.metrics, {**read_json(run.metrics), "speed": speed})
