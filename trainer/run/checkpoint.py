"""Reading a run's checkpoint: only tensors and numbers are loaded, no code in it is run."""

import pickle
from pathlib import Path
from typing import Any

import torch

from storage_schemas.format.errors import MALFORMED, CorruptionError, Problem


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint. Tensors are mapped from the file.

    Raises:
        CorruptionError: the file is not a checkpoint, is not whole, or holds more than tensors and numbers.
    """
    try:
        loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        _require_parts(loaded)
        return loaded
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, *MALFORMED) as error:
        found = f"is not whole, or holds more than tensors and numbers ({type(error).__name__}); no code in it was run"
        fix = "restore it from a copy, or delete the run's folder: training then starts from the beginning"
        raise CorruptionError("checkpoint", [Problem(place=str(path), found=found, fix=fix)]) from error


def _require_parts(loaded: Any) -> None:
    """Refuse a file without a number of steps and weights.

    Raises:
        ValueError: one of them is missing, or is something else.
    """
    steps, weights = loaded["global_step"], loaded["state_dict"]
    if type(steps) is not int or steps < 0 or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise ValueError("not a number of steps, or not weights")


def steps_in_checkpoint(path: Path) -> int:
    """Return how many steps a checkpoint has behind it; 0 if there is no checkpoint.

    Raises:
        CorruptionError: the file is not a whole checkpoint.
    """
    return int(read_checkpoint(path)["global_step"]) if path.exists() else 0
