"""Reading a run's checkpoint: only tensors and numbers are loaded, no code in it is run."""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from storage_schemas.format.errors import MALFORMED, CorruptionError, Problem, first_problems

RESTORE = "restore it from a copy, or delete the run's folder: training then starts from the beginning"


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
        raise CorruptionError("checkpoint", [Problem(place=str(path), found=found, fix=RESTORE)]) from error


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


def require_checkpoint_of(path: Path, module: nn.Module) -> None:
    """Refuse a checkpoint whose tensors are not those of a run, before Lightning loads it.

    Args:
        path: of the checkpoint.
        module: what the run trains, whole on this process.

    Raises:
        CorruptionError: the file cannot be read, or a tensor of the weights or of the optimiser is missing, unknown, or
            of another shape.
    """
    checkpoint = read_checkpoint(path)
    problems = [*_weight_problems(checkpoint["state_dict"], module), *_optimiser_problems(checkpoint, module)]
    if problems:
        raise CorruptionError(
            f"checkpoint {path}", [*first_problems(problems), Problem(place="what to do", found=RESTORE)]
        )


def _weight_problems(weights: Mapping[str, Tensor], module: nn.Module) -> Iterator[Problem]:
    expected = module.state_dict()
    for name in expected.keys() - weights.keys():
        yield Problem(place=name, found="is missing")
    for name in weights.keys() - expected.keys():
        yield Problem(place=name, found="is no tensor of this run")
    for name in expected.keys() & weights.keys():
        yield from _shape_problem(name, weights[name], expected[name])


def _optimiser_problems(checkpoint: Mapping[str, Any], module: nn.Module) -> Iterator[Problem]:
    """Yield what is wrong with the optimiser's tensors.

    A parameter is known by its number in the module; in the checkpoint of a sharded run by its name.
    """
    named = list(module.named_parameters())
    known: dict[Any, tuple[str, Tensor]] = dict(enumerate(named)) | {name: (name, value) for name, value in named}
    try:
        [optimiser], [_] = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
        states = {key: (*known[key], dict(state)) for key, state in optimiser["state"].items()}
        keys = [key for group in optimiser["param_groups"] for key in group["params"]]
        found = [known[key] for key in keys]
    except MALFORMED as error:
        yield Problem(place="optimiser or schedule", found=f"is malformed ({type(error).__name__}: {error})")
        return
    if not found or len(set(keys)) != len(keys) or not states.keys() <= set(keys):
        yield Problem(place="optimizer_states", found="names a parameter twice, or in no group")
    for name, parameter, state in states.values():
        for part, value in state.items():
            if isinstance(value, Tensor) and value.ndim:
                yield from _shape_problem(f"optimizer_states: {part} of {name}", value, parameter)


def _shape_problem(name: str, found: Tensor, expected: Tensor) -> Iterator[Problem]:
    if found.shape != expected.shape:
        yield Problem(place=name, found=f"has the shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
