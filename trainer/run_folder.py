"""The folder of a run: its identity, its checkpoint, its scores and its student. Files appear whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from storage_schemas.format.errors import CorruptionError, IdentityError, Problem
from storage_schemas.format.identity import Identity, differences
from storage_schemas.objects.publish import write_whole


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

    @property
    def metrics(self) -> Path:
        """Scores on held-out views, and facts about each teacher."""
        return self.path / "metrics.json"

    @property
    def history(self) -> Path:
        """Losses by step."""
        return self.path / "history.csv"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def weights(self) -> Path:
        """Weights of the exported student."""
        return self.path / "student.safetensors"

    @property
    def lock(self) -> Path:
        """Lock file of the process that trains; it is there only while one does."""
        return self.path / "run.lock"

    @property
    def card(self) -> Path:
        """Description of the exported student. It is written last: a run with a card is finished."""
        return self.path / "student.json"


def require_run(run: RunFolder, identity: Identity) -> None:
    """Refuse a folder that holds another run.

    Args:
        run: the folder. It may be empty, or not exist yet.
        identity: everything that the trained weights depend on.

    Raises:
        IdentityError: the run in the folder differs; every different value is named, with both.
    """
    if not run.identity.exists():
        return
    if problems := differences(read_json(run.identity), json.loads(json.dumps(identity)), holder="the run there"):
        fix = "repeat the settings that this run began with, or give the new run another folder with --runs"
        raise IdentityError(f"run {run.path}", [*problems, Problem(place="what to do", found=fix)])


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
