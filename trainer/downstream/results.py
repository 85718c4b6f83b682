"""The scores of one student or teacher: one JSON file, which every command adds to, and the table that is printed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.identity import digest, require_same
from storage_schemas.format.views import ViewSet
from trainer.downstream.measured import Measured
from trainer.run_folder import read_json, write_json

VERSION = 1
"""Version of the file. Files of other versions are refused."""
LIBRARIES = ("numpy", "scikit-learn", "torch")
"""Libraries that the scores are computed with."""
NONE = "—"
"""Text for a score that was not measured."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one task measured on the features of one view set."""

    task: str
    output: str
    """Output of the student, or name of the teacher."""
    view_set: str
    cache: str
    """URI of the cache, for people: `features` tells caches apart."""
    features: str
    """Digest of everything that the features depend on."""
    settings: Mapping[str, Any]
    """Everything else that the scores depend on: settings, and digests of files."""
    scores: Mapping[str, float]
    counts: Mapping[str, int | float | str]
    seconds: float
    versions: Mapping[str, str]
    """Of the libraries that computed it."""

    @property
    def key(self) -> str:
        """What tells this score from others."""
        return score_key(self.task, self.features, self.settings)

    @property
    def resolution(self) -> int:
        """Resolution of the view set (pixels)."""
        return ViewSet.parse(self.view_set).resolution


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All scores of one student or teacher, by key."""

    path: Path
    """The JSON file."""
    subject: Mapping[str, Any]
    """Whose scores they are."""
    scores: Mapping[str, Score]

    def with_score(self, score: Score) -> "Results":
        """Add a score, and write the file."""
        results = replace(self, scores={**self.scores, score.key: score})
        scores = [asdict(found) for found in results.scores.values()]
        write_json(self.path, {"version": VERSION, "subject": self.subject, "scores": scores})
        return results


def score_key(task: str, features: str, settings: Mapping[str, Any]) -> str:
    """Return what tells a score from others: task, features and settings."""
    return digest({"task": task, "features": features, "settings": settings})


def new_score(about: Mapping[str, Any], measured: Measured, seconds: float) -> Score:
    """Return the score of a task that has just been measured.

    Args:
        about: task, output, view_set, cache, features and settings.
        measured: what the task returned.
        seconds: how long it took, without the features.

    Raises:
        ContractError: a score is NaN or infinite.
    """
    broken = [name for name, value in measured.scores.items() if not float("-inf") < value < float("inf")]
    if broken:
        place = f"{about['task']} of {about['output']} on {about['view_set']}"
        raise ContractError("scores", [Problem(place=place, found=f"{name} is not finite") for name in broken])
    versions = {name: version(name) for name in ("stillhouse", *LIBRARIES)}
    return Score(**about, scores=measured.scores, counts=measured.counts, seconds=round(seconds, 2), versions=versions)


def open_results(path: Path, subject: Mapping[str, Any]) -> Results:
    """Read the scores that are there already.

    Args:
        path: the JSON file; it need not exist.
        subject: whose scores they must be.

    Raises:
        IdentityError: they are those of another student or teacher.
        ContractError: another version wrote the file.
        CorruptionError: it is not JSON.
    """
    if not path.exists():
        return Results(path=path, subject=subject, scores={})
    stored = read_json(path)
    scores = scores_in(path)
    fix = f"delete {path}, or give another folder: --to"
    require_same(f"scores in {path}", stored["subject"], subject, fix)
    return Results(path=path, subject=subject, scores={score.key: score for score in scores})


def scores_in(path: Path) -> list[Score]:
    """Return the scores in a file, in the order in which they were measured; none where there is no file.

    Raises:
        ContractError: another version wrote the file.
        CorruptionError: it is not JSON.
    """
    if not path.exists():
        return []
    stored = read_json(path)
    if stored.get("version") != VERSION:
        found = f"has version {stored.get('version')}, but this Stillhouse reads version {VERSION}"
        raise ContractError("scores", [Problem(place=str(path), found=found, fix="delete it, or use that version")])
    return [Score(**values) for values in stored["scores"]]


def table_text(scores: Sequence[Score], is_lower_better: Callable[[str, str], bool]) -> str:
    """Return a table: a line for each task, output and score, a column for each view set. The best has a star.

    Args:
        scores: those to show.
        is_lower_better: whether the lowest value of a task's score is the best.
    """
    sets = sorted({score.view_set for score in scores}, key=lambda name: (ViewSet.parse(name).resolution, name))
    values: dict[tuple[str, str, str], dict[str, float]] = {}
    for score in scores:
        for name, value in score.scores.items():
            values.setdefault((score.task, score.output, name), {})[score.view_set] = value
    rows = [("task", "features", "score", *sets)]
    for (task, output, name), by_set in values.items():
        best = (min if is_lower_better(task, name) else max)(by_set.values())
        marked = {found: f"{value:.4f}{'*' if value == best else ' '}" for found, value in by_set.items()}
        rows.append((task, output, name, *(marked.get(found, f"{NONE} ") for found in sets)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place < 3 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", "* the best over view sets"])


def json_text(scores: Sequence[Score]) -> str:
    """Return scores as JSON."""
    return json.dumps([asdict(score) for score in scores], indent=1, ensure_ascii=False, allow_nan=False)
