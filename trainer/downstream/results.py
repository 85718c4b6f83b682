"""The scores of one student or teacher: one JSON file, which every command adds to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.identity import digest, require_same
from trainer.downstream.measured import Measured
from trainer.run_folder import read_json, write_json

VERSION = 1
"""Version of the file. Files of other versions are refused."""
RESULTS = "evaluation.json"
"""Name of the file, in the folder of a run."""
SMALLER = "smaller"
"""Setting of a comparison over resolutions: digests of the features at smaller ones."""
LIBRARIES = ("numpy", "scikit-learn", "torch")
"""Libraries that the scores are computed with."""


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
    views: str
    """Digest of the views that were used: scores with the same views and settings may be compared."""
    features: str
    """Digest of everything that the features depend on."""
    settings: Mapping[str, Any]
    """Everything else that the scores depend on: settings, and digests of files."""
    scores: Mapping[str, float]
    lower_is_better: Sequence[str]
    """Those of the scores of which the lowest is the best."""
    counts: Mapping[str, int | float | str]
    seconds: float
    versions: Mapping[str, str]
    """Of the libraries that computed it."""

    @property
    def key(self) -> str:
        """What tells this score from others."""
        return score_key(self.task, self.features, self.settings)


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
        about: task, output, view_set, cache, views, features, settings and lower_is_better.
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


def json_text(scores: Sequence[Score]) -> str:
    """Return scores as JSON."""
    return json.dumps([asdict(score) for score in scores], indent=1, ensure_ascii=False, allow_nan=False)
