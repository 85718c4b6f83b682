"""The runs under a folder, as far as each has come."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from storage_schemas.format.errors import ContractError, IdentityError, Problem
from storage_schemas.format.identity import differences
from trainer.data.source import Source
from trainer.run.history import read_history
from trainer.run_folder import RunFolder, read_json


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """One student: what it is of, and what was measured so far."""

    name: str
    """Name of its folder."""
    run: RunFolder
    recipe: Mapping[str, Any]
    """Every setting that its weights depend on."""
    learnt_from: Mapping[str, Any]
    """Identity of the cache, with the teachers that it learns from."""
    evaluations: tuple[Mapping[str, Any], ...]
    """Scores on held-out views, by step."""
    history: Sequence[Mapping[str, str]]
    """Rows of the loss history; none for a run that keeps it elsewhere."""
    speed: Mapping[str, float] | None
    """Views per second, and share of the time spent waiting for data; None before a process of the run ended."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers that it learns from."""
        return tuple(self.learnt_from["teachers"])

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe["steps"]

    @property
    def finished(self) -> bool:
        """True once its student is exported."""
        return self.run.card.exists()


def find_runs(folder: Path, source: Source) -> list[RunResult]:
    """Return every run of a folder, in order of name.

    Args:
        folder: of runs, or of one run; one that is not there holds none.
        source: the cache that the runs must be of.

    Raises:
        IdentityError: a run learnt from something else than the cache holds.
        ContractError: a run was written by another version.
        CorruptionError: one of its files is not JSON.
    """
    places = [one.parent for one in (folder / "run.json", *sorted(folder.glob("*/run.json"))) if one.exists()]
    results = [_result(place) for place in places]
    if problems := [problem for one in results for problem in _strange(one, source)]:
        fix = "point RUNS at runs of this cache; `make train` trains one"
        raise IdentityError(f"a run of {folder}", [*problems, Problem(place="what to do", found=fix)])
    return results


def _result(place: Path) -> RunResult:
    run = RunFolder(path=place)
    identity = _fields(run.identity, "recipe", "cache")
    metrics = _fields(run.metrics, "evaluations") if run.metrics.exists() else {"evaluations": []}
    return RunResult(
        name=place.name or place.resolve().name,  # `.` has no name of its own
        run=run,
        recipe=identity["recipe"],
        learnt_from=identity["cache"],
        evaluations=tuple(sorted(metrics["evaluations"], key=lambda one: one["step"])),
        history=read_history(run.history),
        speed=metrics.get("speed"),
    )


def _fields(path: Path, *names: str) -> dict[str, Any]:
    values = read_json(path)
    if absent := [name for name in names if name not in values]:
        found = f"has no {', '.join(absent)}: another version wrote it"
        raise ContractError("run", [Problem(place=str(path), found=found)])
    return values


def _strange(one: RunResult, source: Source) -> Iterator[Problem]:
    # a cache that has gained a teacher since is still the one that the run learnt from
    teachers = {name: found for name, found in source.identity["teachers"].items() if name in one.teachers}
    # and a run may have learnt on some of its sets alone
    rows = {name: source.identity["rows"].get(name) for name in one.learnt_from["rows"]}
    held = {"views": source.identity["views"], "rows": rows, "teachers": teachers}
    for problem in differences(held, one.learnt_from):
        yield Problem(place=f"{one.run.path}, {problem.place}", found=problem.found)
