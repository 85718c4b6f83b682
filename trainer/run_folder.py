"""The folder of a run: what it is of, how far it came, and what it measured. Every file appears whole or not at all."""

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
    """Where one run keeps everything."""

    path: Path

    @property
    def identity(self) -> Path:
        """What the run is of: recipe, cache, statistics."""
        return self.path / "run.json"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """What was measured on held-out views, and facts about each teacher."""
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
        """The exported student: weights."""
        return self.path / "student.safetensors"

    @property
    def card(self) -> Path:
        """The exported student: what it is, how to build it. Written last: a run with a card is finished."""
        return self.path / "student.json"


def require_run(run: RunFolder, identity: Identity) -> None:
    """Refuse a folder that holds a run of something else.

    Args:
        run: the folder; it may be empty, or not there.
        identity: all that the trained weights depend on.

    Raises:
        IdentityError: every value that differs is named, with both.
    """
    if not run.identity.exists():
        return
    if problems := differences(read_json(run.identity), json.loads(json.dumps(identity)), holder="the run there"):
        fix = "repeat the settings that this run began with, or give the new one another folder with --runs"
        raise IdentityError(f"run {run.path}", [*problems, Problem(place="what to do", found=fix)])


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, keys in the order given."""
    write_whole(path, (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptionError: the file is none.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptionError("run", [Problem(place=str(path), found=f"is not JSON: {error}")]) from error
