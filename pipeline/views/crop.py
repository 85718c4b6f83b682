"""Cutting one view: the box in the source image, the canvas, and the window that a fixed teacher sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipeline.config import ViewsConfig
from pipeline.images.decoding import Box, Picture
from pipeline.views.evaluation_views import evaluation_square
from storage_schemas.format.geometry import CanvasGeometry, Offset
from storage_schemas.format.seeds import Key, uniforms, unit_interval

TRIES = 10
"""Boxes to draw before the largest box that fits is taken instead."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """The part of an upright source image that becomes a canvas (pixels of the source)."""

    left: float
    top: float
    width: float
    height: float
    flip: bool
    """Whether it is mirrored left to right after cutting."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CropDraws:
    """The random numbers of a crop. They do not depend on the image's size. All are uniform in [0, 1)."""

    across: float
    """Position of the box between the image's left and right edge."""
    down: float
    """Position of the box between the image's top and bottom edge."""
    sizes: tuple[float, ...]
    """Area and aspect of each box, in turn: the first box that fits is taken."""
    flip: bool
    draw: int
    """Number of the view among those of its image, which places an evaluation view."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A square that was cut from an image and resized. It is mirrored only when its pixels are read."""

    image: Image.Image
    flip: bool

    def pixels(self) -> UInt8[np.ndarray, "side side 3"]:
        """Return the pixels."""
        return np.asarray(self.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else self.image)


def draw_for_crop(config: ViewsConfig, key: Key) -> CropDraws:
    """Draw the random numbers of a crop.

    Args:
        config: how often a crop is mirrored.
        key: `(seed, image key, draw)`.
    """
    across, down, *sizes = uniforms((*key, "crop"), 2 * TRIES + 2).tolist()
    flip = unit_interval((*key, "flip")) < config.flip
    return CropDraws(across=across, down=down, sizes=tuple(sizes), flip=flip, draw=int(key[-1]))


def crop_of(image_width: int, image_height: int, config: ViewsConfig, draws: CropDraws) -> Crop:
    """Return the crop of a view.

    It is a box of random area and aspect at a random position, or the largest square in the middle, as `config.crop`
    says; for an evaluation view, the square of its placing.

    Args:
        image_width: width of the upright source (pixels).
        image_height: height of the upright source (pixels).
        config: the kind of crop, and the ranges of area and aspect.
        draws: the view's random numbers.
    """
    if config.placing != "drawn":
        left, top, width, height = evaluation_square(image_width, image_height, config, draws.draw)
    elif config.crop == "centre":
        width = height = float(min(image_width, image_height))
        left, top = (image_width - width) / 2, (image_height - height) / 2
    else:
        width, height = _size(image_width, image_height, config, draws.sizes)
        left, top = draws.across * (image_width - width), draws.down * (image_height - height)
    return Crop(left=left, top=top, width=width, height=height, flip=draws.flip)


def draw_crop(image_width: int, image_height: int, config: ViewsConfig, key: Key) -> Crop:
    """Draw the random numbers of a crop, and return the crop; see `draw_for_crop` and `crop_of`."""
    return crop_of(image_width, image_height, config, draw_for_crop(config, key))


def cut_canvas(picture: Picture, crop: Crop, side: int) -> Cut:
    """Cut a crop and resize it to a canvas of `side` pixels (bicubic, antialiased).

    Raises:
        UnusableImageError: the picture's file is damaged.
    """
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    return _resized(picture, box, side, crop.flip)


def cut_window(picture: Picture, crop: Crop, geometry: CanvasGeometry, offset: Offset, side: int) -> Cut:
    """Cut the window at `offset` straight from the source, at a scale of its own.

    The window's box is exact in source pixels: it is not rounded to the pixels of the canvas or of the result.

    Args:
        picture: the source.
        crop: the crop that became the canvas.
        geometry: the canvas.
        offset: position of the window in the canvas (patches), after mirroring.
        side: side of the result (pixels).

    Raises:
        UnusableImageError: the picture's file is damaged.
    """
    start_row, start_col = offset.row * geometry.patch, offset.col * geometry.patch
    if crop.flip:
        start_col = geometry.side - geometry.resolution - start_col
    across, down = crop.width / geometry.side, crop.height / geometry.side
    left, top = crop.left + start_col * across, crop.top + start_row * down
    box = (left, top, left + geometry.resolution * across, top + geometry.resolution * down)
    return _resized(picture, box, side, crop.flip)


def _size(image_width: int, image_height: int, config: ViewsConfig, draws: Sequence[float]) -> tuple[float, float]:
    for area_draw, aspect_draw in zip(draws[::2], draws[1::2], strict=True):
        area = _between(*config.area, area_draw) * image_width * image_height
        aspect = math.exp(_between(math.log(config.aspect[0]), math.log(config.aspect[1]), aspect_draw))
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if width <= image_width and height <= image_height:
            return width, height
    aspect = min(max(image_width / image_height, config.aspect[0]), config.aspect[1])
    return min(image_width, image_height * aspect), min(image_height, image_width / aspect)


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * draw


def _resized(picture: Picture, box: Box, side: int, flip: bool) -> Cut:
    image, (left, top, right, bottom) = picture.scaled_for(box, side)
    # rounding in the sums above can put the box slightly outside the image, which Pillow refuses
    within = (max(left, 0.0), max(top, 0.0), min(right, image.width), min(bottom, image.height))
    return Cut(image.resize((side, side), Image.Resampling.BICUBIC, box=within), flip)
