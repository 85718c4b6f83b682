"""The folder of a run: its identity, its checkpoint, its scores and its student. Files appear whole or not at all."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from storage_schemas.format.errors import CorruptionError, IdentityError, Problem
from storage_schemas.format.identity import Identity, differences
from storage_schemas.objects.publish import write_whole
from trainer.settings.unrecorded import completed

STEPS = "recipe.steps"
BESIDE = ("changes", "start")
"""What `run.json` holds beside the identity: changes of settings, and what the starting weights gave."""
MAY_CHANGE = frozenset(
    f"recipe.optimiser.{name}"
    for name in ("lr", "weight_decay", "beta1", "beta2", "warmup", "frozen_trunk", "gradient_clip")
) | {STEPS}
"""Settings that may change while a run is trained, if the user asks for it; steps may only become more. Another kind of
optimiser has another state."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The folder that keeps one run, and the paths of its files."""

    path: Path

    @property
    def identity(self) -> Path:
        """Everything that the trained weights depend on: the recipe, and digests of the cache."""
        return self.path / "run.json"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "last.ckpt"

    def earlier_checkpoint(self, step: int) -> Path:
        """A checkpoint before the last one."""
        return self.path / f"step-{step}.ckpt"

    def earlier_steps(self) -> list[int]:
        """Return the steps of the checkpoints before the last one, in order."""
        names = (path.stem.removeprefix("step-") for path in self.path.glob("step-*.ckpt"))
        return sorted(int(name) for name in names if name.isdecimal())

    @property
    def metrics(self) -> Path:
        """Scores on held-out views, and facts about each teacher."""
        return self.path / "metrics.json"

    @property
    def history(self) -> Path:
        """Losses by step."""
        return self.path / "history.csv"

    @property
    def sessions(self) -> Path:
        """When the run was trained, from which step to which, how long, and with which versions."""
        return self.path / "sessions.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def weights(self) -> Path:
        """Weights of the exported student."""
        return self.path / "student.safetensors"

    @property
    def blocks(self) -> Path:
        """Normaliser of the exported student's blocks; absent until it is fitted."""
        return self.path / "blocks.safetensors"

    @property
    def lock(self) -> Path:
        """Lock file of the process that trains; it is there only while one does."""
        return self.path / "run.lock"

    @property
    def card(self) -> Path:
        """Description of the exported student. It is written last; see `is_finished`."""
        return self.path / "student.json"

    def is_finished(self, steps: int) -> bool:
        """Whether the student is exported.

        Args:
            steps: of the run, as it is asked for now. A finished run that goes on with more steps keeps the student of
                before until the new one is exported.
        """
        return self.card.exists() and read_json(self.card)["recipe"]["steps"] == steps


def require_run(run: RunFolder, identity: Identity, accepted: Collection[str] = ()) -> None:
    """Refuse a folder that holds another run.

    Args:
        run: the folder. It may be empty, or not exist yet.
        identity: everything that the trained weights depend on.
        accepted: settings that may differ, such as `recipe.optimiser.lr`.

    Raises:
        IdentityError: the run in the folder differs; every different value is named, with both.
    """
    if not run.identity.exists():
        return
    stored = {name: value for name, value in read_json(run.identity).items() if name not in BESIDE}
    found = differences(_completed(stored), _completed(identity), holder="the run there")
    fewer = identity.get("recipe", {}).get("steps", 0) < stored.get("recipe", {}).get("steps", 0)
    may_change = MAY_CHANGE - {STEPS} if fewer else MAY_CHANGE
    if problems := [problem for problem in found if problem.place not in may_change.intersection(accepted)]:
        fix = "repeat the settings that this run began with, or give the new run another name: NAME=…, or --name"
        if all(problem.place in may_change for problem in problems):
            fix = f"{fix}; to resume with these, add --running.accept-changes True"
        raise IdentityError(f"run {run.path}", [*problems, Problem(place="what to do", found=fix)])


def identity_with_changes(run: RunFolder, identity: Identity, step: int) -> dict[str, Any]:
    """Return what `run.json` says of a run that starts or resumes: its identity, and every change of its settings.

    Args:
        run: the folder. It may be empty.
        identity: everything that the trained weights depend on, with the settings as they are now.
        step: the step after which it starts or resumes.
    """
    stored = read_json(run.identity) if run.identity.exists() else {}
    changes = list(stored.get("changes", []))
    identity = {**identity, **({"start": stored["start"]} if "start" in stored and step else {})}
    changed = differences(_completed(stored)["recipe"], _completed(identity)["recipe"], "before")
    if stored and changed:
        changes.append({"after_step": step, "settings": [str(problem) for problem in changed]})
    return {**identity, "changes": changes} if changes else dict(identity)


def _completed(identity: Identity) -> dict[str, Any]:
    as_stored = json.loads(json.dumps(identity))
    return {**as_stored, "recipe": completed(as_stored.get("recipe", {}))}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, keys in the order given. The file appears whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    write_whole(path, (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptionError: the file is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptionError("run", [Problem(place=str(path), found=f"is not JSON: {error}")]) from error
