"""The runs in a folder, finished or not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from storage_schemas.format.errors import ContractError, IdentityError, Problem
from storage_schemas.format.identity import differences
from trainer.data.source import Source
from trainer.run.history_rows import read_history
from trainer.run.sessions import read_sessions
from trainer.run_folder import RunFolder, read_json


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """One run: its recipe and cache, and its losses and scores so far."""

    name: str
    """Name of the run's folder."""
    run: RunFolder
    recipe: Mapping[str, Any]
    """Every setting that the weights depend on."""
    learnt_from: Mapping[str, Any]
    """Identity of the cache, with the teachers that the run learns from."""
    evaluations: tuple[Mapping[str, Any], ...]
    """Scores on held-out views, in order of step."""
    history: Sequence[Mapping[str, str]]
    """Rows of the loss history; empty for a run without the logger `csv`."""
    tasks: Sequence[Mapping[str, Any]]
    """Accuracies that `running.labels` measured during training, in order of step."""
    speed: Mapping[str, float] | None
    """Views per second, and share of the time spent waiting for data; None until the run ends or stops early."""
    parameters: Mapping[str, int]
    """Of `backbone` and `heads`; empty for a run that an earlier version began."""
    sessions: Sequence[Mapping[str, Any]]
    """See `sessions.json`; empty for a run that an earlier version trained."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers that the run learns from."""
        return tuple(self.learnt_from["teachers"])

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe["steps"]

    @property
    def finished(self) -> bool:
        """Whether the student is exported."""
        return self.run.is_finished(self.steps)


def find_runs(folder: Path, source: Source) -> list[RunResult]:
    """Return every run of a folder, in order of name.

    Args:
        folder: a folder of runs, or the folder of one run. It need not exist.
        source: the cache; all runs must belong to it.

    Raises:
        IdentityError: a run learnt from other data than the cache holds.
        ContractError: a run was written by another version of Stillhouse.
        CorruptionError: a file of a run is not JSON.
    """
    results = read_runs(folder)
    if problems := [problem for result in results for problem in _differences(result, source)]:
        fix = "set RUNS to runs of this cache; `make train` trains one"
        raise IdentityError(f"a run of {folder}", [*problems, Problem(place="what to do", found=fix)])
    return results


def read_runs(folder: Path) -> list[RunResult]:
    """Return every run of a folder, of whatever cache, in order of name.

    Args:
        folder: a folder of runs, or the folder of one run. It need not exist.

    Raises:
        ContractError: a run was written by another version of Stillhouse.
        CorruptionError: a file of a run is not JSON.
    """
    files = (folder / "run.json", *sorted(folder.glob("*/run.json")))
    return [_result(path.parent) for path in files if path.exists()]


def _result(place: Path) -> RunResult:
    run = RunFolder(path=place)
    identity = _fields(run.identity, "recipe", "cache")
    metrics = _fields(run.metrics, "evaluations") if run.metrics.exists() else {"evaluations": []}
    return RunResult(
        name=place.name or place.resolve().name,  # `.` has no name of its own
        run=run,
        recipe=identity["recipe"],
        learnt_from=identity["cache"],
        evaluations=tuple(sorted(metrics["evaluations"], key=lambda evaluation: evaluation["step"])),
        history=read_history(run.history),
        tasks=sorted(metrics.get("tasks", []), key=lambda measured: measured["step"]),
        speed=metrics.get("speed"),
        parameters=metrics.get("parameters", {}),
        sessions=read_sessions(run),
    )


def _fields(path: Path, *names: str) -> dict[str, Any]:
    values = read_json(path)
    if missing := [name for name in names if name not in values]:
        found = f"has no {', '.join(missing)}: another version of Stillhouse wrote it"
        raise ContractError("run", [Problem(place=str(path), found=found)])
    return values


def _differences(result: RunResult, source: Source) -> Iterator[Problem]:
    # the cache may hold more teachers, view sets and views than the run learnt from
    learnt, now = result.learnt_from, source.identity
    rows = {name: _rows_then(splits, now["rows"].get(name, {})) for name, splits in learnt["rows"].items()}
    teachers = {name: found for name, found in now["teachers"].items() if name in result.teachers}
    if any(rows[name] != now["rows"].get(name) for name in rows):  # dispersions are those of all views
        teachers = {
            name: {**found, "dispersion": learnt["teachers"][name]["dispersion"]} for name, found in teachers.items()
        }
    in_cache = {"views": now["views"], "rows": rows, "teachers": teachers}
    for problem in differences(in_cache, learnt):
        yield Problem(place=f"{result.run.path}, {problem.place}", found=problem.found)


def _rows_then(learnt: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers of views by split that a run learnt from, where the cache has as many or more."""
    return {split: min(views, now.get(split, 0)) for split, views in learnt.items()}
