"""What a run measured, as `metrics.json` holds it: facts about each teacher, and the student's scores by step."""

from collections.abc import Mapping
from typing import Any

from trainer.evaluate import TeacherScore
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.source import Source, TeacherSource


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


def add_scores(run: RunFolder, step: int, scores: Mapping[str, TeacherScore]) -> None:
    """Add the scores of a step; those of the same step that were there are replaced."""
    metrics = read_json(run.metrics)
    others = [one for one in metrics["evaluations"] if one["step"] != step]
    teachers = {name: score.attributes() for name, score in scores.items()}
    write_json(run.metrics, {**metrics, "evaluations": [*others, {"step": step, "teachers": teachers}]})


def add_speed(run: RunFolder, views_per_second: float, wait_share: float) -> None:
    """Add how fast the run went, over the steps of its last process."""
    speed = {"views_per_second": views_per_second, "wait_share": wait_share}
    write_json(run.metrics, {**read_json(run.metrics), "speed": speed})
