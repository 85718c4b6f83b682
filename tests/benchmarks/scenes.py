"""Drawn scenes: a bright shape on a dark ground, whose class, mask of parts and keypoints are known exactly."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image, ImageDraw

SIDE = 128
"""Side of a scene (pixels)."""
SHAPES: dict[str, Sequence[tuple[float, float]]] = {
    "arrow": [(0, -1), (0.9, 0), (0.35, 0), (0.35, 1), (-0.35, 1), (-0.35, 0), (-0.9, 0)],
    "cross": [
        *[(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)],
        *[(0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    ],
    "diamond": [(0, -1), (0.6, 0), (0, 1), (-0.6, 0)],
    "house": [(0, -1), (0.8, -0.2), (0.8, 1), (-0.8, 1), (-0.8, -0.2)],
    "slab": [(-1, -0.45), (1, -0.45), (1, 0.45), (-1, 0.45)],
    "wedge": [(-0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
}
"""Name of a class → the corners of its shape, in a square from −1 to 1."""
CLASSES = tuple(SHAPES)
PARTS = 5
"""Values of a mask: 0 for the ground, 1 to 4 for the quarters of a shape, whatever its class is."""
KEYPOINTS = 4


@final
@dataclass(frozen=True, kw_only=True)
class Scene:
    """A scene and what is known of it."""

    image: np.ndarray
    """`[SIDE, SIDE, 3]`, uint8."""
    parts: np.ndarray
    """`[SIDE, SIDE]`, uint8: the part in each pixel."""
    label: int
    """Index of its class."""
    keypoints: np.ndarray
    """`[KEYPOINTS, 2]`: x and y of the first corners (pixels; 0 is the centre of the first pixel)."""


def draw_scene(seed: int) -> Scene:
    """Draw the scene of a seed."""
    random = np.random.default_rng(seed)
    label = int(random.integers(len(CLASSES)))
    radius, angle = random.uniform(32, 50), random.uniform(-0.3, 0.3)
    centre = random.uniform(radius, SIDE - radius, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array(SHAPES[CLASSES[label]]) * radius @ turn.T + centre
    outline = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(outline).polygon([tuple(corner) for corner in corners.tolist()], fill=1)
    inside = np.asarray(outline) > 0
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    own = np.stack([x - centre[0], y - centre[1]], axis=-1) @ turn
    quarter = 1 + (own[..., 0] > 0) + 2 * (own[..., 1] > 0)
    ground, colour = random.uniform(10, 90, 3), random.uniform(150, 240, 3)
    image = np.where(inside[..., None], colour, ground) + random.normal(0, 4, (SIDE, SIDE, 3))
    return Scene(
        image=np.clip(image, 0, 255).astype(np.uint8),
        parts=np.where(inside, quarter, 0).astype(np.uint8),
        label=label,
        keypoints=corners[:KEYPOINTS],
    )


def key_of(part: str, seed: int, label: int) -> str:
    """Return the path of a scene below the folder of images."""
    return f"{part}/{CLASSES[label]}/{seed}.png"


def write_scenes(folder: Path, part: str, seeds: Sequence[int]) -> None:
    """Write scenes below `folder/images`, and their masks at the same paths below `folder/masks`."""
    for seed in seeds:
        scene = draw_scene(seed)
        for kind, pixels in (("images", scene.image), ("masks", scene.parts)):
            path = folder / kind / key_of(part, seed, scene.label)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=1)


def write_pairs(path: Path, part: str, seeds: Sequence[int]) -> None:
    """Write the keypoints of pairs of scenes: each scene, and the next one of its class."""
    scenes = {seed: draw_scene(seed) for seed in seeds}
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["source", "target", "source_x", "source_y", "target_x", "target_y"])
        for label in range(len(CLASSES)):
            alike = [seed for seed in seeds if scenes[seed].label == label]
            for source, target in pairwise(alike):
                keys = [key_of(part, seed, label) for seed in (source, target)]
                for here, there in zip(scenes[source].keypoints, scenes[target].keypoints, strict=True):
                    if all(0 <= place <= SIDE - 1 for place in (*here, *there)):
                        rows.writerow([*keys, *here.tolist(), *there.tolist()])
