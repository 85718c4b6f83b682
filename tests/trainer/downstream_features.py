"""Features that tests make themselves: digits of scikit-learn, a label in disguise, and noise."""

from functools import cache

import numpy as np
from sklearn.datasets import load_digits

from storage_schemas.format.views import ViewSet
from trainer.downstream.features import EvaluationFeatures


def features_of(
    vectors: np.ndarray, keys: list[str] | None = None, *, resolution: int = 32, model: str | None = None
) -> EvaluationFeatures:
    """Return features whose summaries are vectors, and whose tokens have them as their mean."""
    count, channels = vectors.shape
    apart = np.random.default_rng(3).normal(size=(count, 2, 2, channels)).astype(np.float32)
    tokens = vectors[:, None, None].astype(np.float32) + apart - apart.mean(axis=(1, 2), keepdims=True)
    return EvaluationFeatures(
        origin="test",
        model=model,
        digest="0" * 64,
        view_set=ViewSet(partition="low", resolution=resolution),
        rows=np.arange(count),
        keys=tuple(keys or [f"{row}.png" for row in range(count)]),
        boxes=np.tile([0.0, 0.0, 32.0, 32.0], (count, 1)),
        flips=np.zeros(count, dtype=bool),
        image_sizes=np.full((count, 2), 32),
        summary=vectors.astype(np.float32),
        shape=(2, 2, channels),
        tokens=lambda part: tokens[part],
    )


@cache
def digits() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return 1,797 images `[images, 8, 8]`, their classes, and keys whose folders name part and class."""
    found = load_digits()
    parts = np.where(np.random.default_rng(0).random(len(found.target)) < 0.3, "val", "train")
    keys = [f"{part}/{label}/{row}.png" for row, (part, label) in enumerate(zip(parts, found.target, strict=True))]
    return found.images, found.target, keys


def at_resolution(images: np.ndarray, side: int) -> np.ndarray:
    """Return images as vectors, at another side that divides theirs."""
    step = images.shape[1] // side
    return images.reshape(len(images), side, step, side, step).mean(axis=(2, 4)).reshape(len(images), -1)


def interval(chance: float, count: int) -> tuple[float, float]:
    """Return where 999 of 1,000 accuracies of a guess lie (normal approximation of the binomial)."""
    reach = 3.3 * (chance * (1 - chance) / count) ** 0.5
    return chance - reach, chance + reach
