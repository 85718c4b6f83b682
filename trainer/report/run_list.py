"""Runs side by side: student, settings that differ, steps, state, fidelity, size. For `runs` and for the report."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.plain_text import one_line
from storage_schemas.objects.file_lock import is_locked
from trainer.downstream.results import RESULTS, Score, scores_in
from trainer.downstream.score_table import table_text
from trainer.recipes import RECIPES
from trainer.report.numbers_as_text import NONE, bytes_text, count_text, number_text
from trainer.report.results import RunResult, read_runs
from trainer.run_name import changed_settings
from trainer.settings.unrecorded import completed


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One run, as the list of runs tells it."""

    name: str
    student: str
    changed: Mapping[str, Any]
    """Settings that differ from those of the run's recipe, by full name."""
    recipe: str
    step: int
    """Steps behind the run, as far as its history, its scores or its student tell."""
    steps: int
    """Steps of the whole run."""
    state: str
    """`finished`, `training` or `stopped`."""
    fidelity: float | None
    """Geometric mean over teachers of F on held-out views, at the best evaluation; None before the first."""
    best_step: int | None
    """Step of that evaluation."""
    last: Mapping[str, float]
    """F for each teacher at the last evaluation."""
    parameters: int | None
    """Parameters of the backbone; None for a run of an earlier version."""
    lr: float
    batches: tuple[int, int]
    """Views of a step: of the low partition, and of the high one."""
    seconds: float | None
    """Time spent training, over all sessions that ended; None where none is recorded."""
    begun: str | None
    """When the first session began (UTC)."""
    versions: str
    """Libraries of the last session."""
    bytes: int
    """Size of the run's folder."""
    evaluation: Sequence[Score]
    """What `evaluate` has measured of the student, in the order of the file."""


def run_facts(result: RunResult) -> RunFacts:
    """Return what the list tells of a run.

    Args:
        result: the run.
    """
    recipe, sessions = result.recipe, result.sessions
    base = RECIPES[recipe["name"]]().identity() if recipe["name"] in RECIPES else recipe
    scores = {found["step"]: _mean_fidelity(found) for found in result.evaluations}
    best = max(scores, key=lambda step: (scores[step], -step), default=None)
    seconds = [session["seconds"] for session in sessions if session["seconds"] is not None]
    last = sessions[-1] if sessions else None
    return RunFacts(
        name=result.name,
        student=recipe["student"],
        changed=changed_settings(completed(recipe), completed(base)),
        recipe=recipe["name"],
        step=_steps_behind(result),
        steps=result.steps,
        state="finished" if result.finished else "training" if is_locked(result.run.lock) else "stopped",
        fidelity=None if best is None else scores[best],
        best_step=best,
        last={name: found["fidelity"] for name, found in result.evaluations[-1]["teachers"].items()}
        if result.evaluations
        else {},
        parameters=result.parameters.get("backbone"),
        lr=recipe["optimiser"]["lr"],
        batches=(recipe["data"]["batch_low"], recipe["data"]["batch_high"]),
        seconds=sum(seconds) if seconds else None,
        begun=sessions[0]["started"] if sessions else None,
        versions="" if last is None else ", ".join(f"{name} {version}" for name, version in last["versions"].items()),
        bytes=_folder_bytes(result.run.path),
        evaluation=scores_in(result.run.path / RESULTS),
    )


def runs_text(folder: Path, *, json_wanted: bool = False) -> str:
    """Return the list of the runs in a folder, for a terminal or as JSON.

    Args:
        folder: of runs.
        json_wanted: whether to give JSON.

    Raises:
        MissingError: it holds no run.
        ContractError, CorruptionError: as `read_runs`.
    """
    facts = [run_facts(result) for result in read_runs(folder)]
    if not facts:
        fix = "run `make train`, or set RUNS"
        raise MissingError("runs", [Problem(place=str(folder), found="holds no run", fix=fix)])
    if json_wanted:
        return json.dumps([asdict(run) for run in best_first(facts)], indent=1, ensure_ascii=False, allow_nan=False)
    measured = {run.name: run.evaluation for run in facts if run.evaluation}
    return f"{list_text(facts)}\n\n{table_text(measured)}" if measured else list_text(facts)


HEADINGS = ("run", "student", "settings that differ", "steps", "state", "best F", "at step", "parameters", "bytes")
_TO_THE_LEFT = ("run", "student", "settings that differ", "state")


def list_text(facts: Sequence[RunFacts]) -> str:
    """Return the list of runs as aligned text, the best fidelity first; runs without a score come last."""
    rows = [HEADINGS, *map(_cells, best_first(facts))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if heading in _TO_THE_LEFT else cell.rjust(width)
            for cell, width, heading in zip(row, widths, HEADINGS, strict=True)
        ).rstrip()
        for row in rows
    ]
    note = "best F: geometric mean over teachers of the fidelity on held-out views, at the best evaluation"
    return "\n".join([*lines, "", note])


def best_first(facts: Iterable[RunFacts]) -> list[RunFacts]:
    """Return runs in order of their best fidelity; those without a score come last, in order of name."""
    return sorted(facts, key=lambda run: (math.inf if run.fidelity is None else -run.fidelity, run.name))


def changed_text(changed: Mapping[str, Any]) -> str:
    """Return the settings that differ in one line; a dash for none."""
    return ", ".join(f"{name} {value}" for name, value in changed.items()) or NONE


def _cells(run: RunFacts) -> tuple[str, ...]:
    return (
        one_line(run.name),
        one_line(run.student),
        one_line(changed_text(run.changed)),
        f"{run.step}/{run.steps}",
        run.state,
        number_text(run.fidelity),
        NONE if run.best_step is None else str(run.best_step),
        NONE if run.parameters is None else count_text(run.parameters),
        bytes_text(run.bytes),
    )


def _mean_fidelity(evaluation: Mapping[str, Any]) -> float:
    """Return the geometric mean over teachers of F: the measure of early stopping."""
    values = [found["fidelity"] for found in evaluation["teachers"].values()]
    return math.exp(sum(map(math.log, values)) / len(values)) if all(value > 0 for value in values) else 0.0


def _steps_behind(result: RunResult) -> int:
    logged = int(result.history[-1]["step"]) if result.history else 0
    scored = result.evaluations[-1]["step"] if result.evaluations else 0
    return result.steps if result.finished else max(logged, scored)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
