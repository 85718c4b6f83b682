"""Seeded random weights, for demonstrations and tests: the model must run, but need not be trained."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.seeds import generator


def seed_of(weights: str) -> int:
    """Return the seed in `random:<seed>`.

    Raises:
        SettingError: the seed is not a whole number of 0 or more.
    """
    seed = weights.removeprefix("random:")
    if not (seed.isascii() and seed.isdigit()):
        raise SettingError(
            f"weights {weights!r}", [Problem(place="seed", found=f"{seed!r} is not a whole number of 0 or more")]
        )
    return int(seed)


def random_weights(shapes: Mapping[str, tuple[int, ...]], model: str, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Draw every parameter of a network, each from its own generator, so that their order does not matter.

    Matrices keep the variance of their input (standard deviation 1/√fan-in). Norms scale by about 1. Layer scales are
    about 0.5, and not DINOv3's initial 1e-5, so that a missing or broken block changes the output.

    Args:
        shapes: parameter → its shape.
        model: name of the model; parameters of the same name in two models get different values.
        seed: of the draw.

    Yields:
        Name of a parameter, and its float32 values.
    """
    for name, shape in shapes.items():
        yield name, _draw(name, shape, model, seed)


def _draw(name: str, shape: tuple[int, ...], model: str, seed: int) -> Tensor:
    noise = generator(("random weights", seed, model, name)).standard_normal(shape, dtype="float32")
    centre, spread = _centre_and_spread(name, shape)
    return torch.from_numpy(noise).mul_(spread).add_(centre)


def _centre_and_spread(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    leaf = name.rsplit(".", 1)[-1]
    if leaf.startswith("gamma"):
        return 0.5, 0.1
    if leaf == "weight" and len(shape) == 1:
        return 1.0, 0.1
    if leaf == "weight":
        return 0.0, 1 / math.sqrt(math.prod(shape[1:]))
    if "bias" in leaf:
        return 0.0, 0.1
    return 0.0, 0.3  # class, register and pooling tokens, position tables
