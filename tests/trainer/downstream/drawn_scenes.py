"""Scenes whose labels, depth, normals and keypoints are known exactly, and views of them with chosen tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from storage_schemas.format.views import ViewSet
from trainer.downstream.features import EvaluationFeatures

CELL = 8
"""Side of a token (pixels of the view)."""

Describe = Callable[[str, np.ndarray, np.ndarray], np.ndarray]
"""Takes an image's key, and x and y `[rows, columns]` of points in it; returns `[rows, columns, channels]`."""


@dataclass(frozen=True)
class Scene:
    """One image."""

    size: tuple[int, int]
    """Height and width."""
    classes: int = 3

    def labels(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Stripes of 16 px, upright where the image is wide, else level: no corners, so they can be found exactly."""
        along = x if self.size[1] >= self.size[0] else y
        return (np.floor(along / 16) % self.classes).astype(np.int64)


def centre(size: tuple[int, int]) -> list[tuple[float, ...]]:
    height, width = size
    side = min(size)
    return [((width - side) // 2 // CELL * CELL, (height - side) // 2 // CELL * CELL, side, side)]


def windows(size: tuple[int, int]) -> list[tuple[float, ...]]:
    """Square windows of the shorter side, the last one shifted inwards."""
    height, width = size
    side = min(size)
    lefts = [min(left, width - side) for left in range(0, width, side)]
    tops = [min(top, height - side) for top in range(0, height, side)]
    return [(left, top, side, side) for top in tops for left in lefts]


def views_of(
    sizes: Mapping[str, tuple[int, int]],
    describe: Describe,
    *,
    cut: Callable[[tuple[int, int]], list[tuple[float, ...]]] = windows,
    resolution: int = 48,
    flips: Sequence[bool] | None = None,
) -> EvaluationFeatures:
    """Return views whose tokens are what `describe` says of the centres of their cells."""
    placed = [(key, box) for key, size in sizes.items() for box in cut(size)]
    cells, flips = resolution // CELL, flips or [False] * len(placed)
    centres, tokens = (np.arange(cells) + 0.5) / cells, []
    for (key, (left, top, width, height)), flip in zip(placed, flips, strict=True):
        x, y = np.meshgrid(left + centres * width, top + centres * height)
        grid = describe(key, x, y).astype(np.float32)
        tokens.append(grid[:, ::-1] if flip else grid)
    stacked = np.stack(tokens)
    return EvaluationFeatures(
        origin="drawn",
        model=None,
        digest="0" * 64,
        view_set=ViewSet(partition="low", resolution=resolution),
        rows=np.arange(len(placed)),
        keys=tuple(key for key, _ in placed),
        boxes=np.array([box for _, box in placed], np.float64),
        flips=np.array(flips, bool),
        image_sizes=np.array([sizes[key] for key, _ in placed], np.int64),
        summary=None,
        shape=stacked.shape[1:],
        tokens=lambda views: stacked[views],
    )


def pixel_centres(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of every pixel's centre, `[height, width]`."""
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    return x, y


def noise(channels: int, seed: int = 0) -> Describe:
    """Return tokens that have nothing to do with the image."""
    generator = np.random.default_rng(seed)
    return lambda _key, x, _y: generator.normal(size=(*x.shape, channels))
