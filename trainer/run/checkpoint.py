"""Reading a run's checkpoint: its tensors and numbers alone. Nothing in it runs."""

import pickle
from pathlib import Path
from typing import Any

import torch

from storage_schemas.format.errors import CorruptionError, Problem


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, tensors as they lie on the disk.

    Raises:
        CorruptionError: it is no checkpoint, is not whole, or holds more than tensors and numbers.
    """
    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        found = f"not weights and numbers alone, or not whole ({type(error).__name__}); nothing in it was run"
        fix = "put it back from a copy, or delete the run's folder: it then begins anew"
        raise CorruptionError("checkpoint", [Problem(place=str(path), found=found, fix=fix)]) from error
