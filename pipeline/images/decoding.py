"""Decoding: turn an image file into upright RGB, or say why that is not possible; docs/images.md has the rules.

A JPEG can be decoded at a half, a quarter or an eighth of its size in a fraction of the time. This is done where the
box is resized to so few pixels that the result is almost the same.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import numpy as np
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.config import ViewsConfig

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are decoded, whatever the file is called. Pillow reads more, but runs a program for some (EPS)."""
SHRINKS = (8, 4, 2, 1)
"""Divisors by which a JPEG can be made smaller while it is decoded."""
OVERSAMPLING = 3
"""Fewest pixels of the decoded image along each axis for one pixel of the result. A JPEG is not shrunk further."""
MIRRORED_ACROSS, MIRRORED_DOWN = frozenset({2, 3, 6, 7}), frozenset({3, 4, 7, 8})
"""EXIF orientations for which the left edge, or the top edge, of the upright image is the right or bottom edge of the
stored one."""

TRACKED_BLOCK_BYTES = 2**25 - 2**16
"""Almost 32 MiB, which is the largest block that glibc adapts its threshold to."""
ENCODER_BUFFER_BYTES = 8 * 2**20
"""Twice the bytes of the largest canvas."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom (pixels)."""

Image.MAX_IMAGE_PIXELS = None  # `ViewsConfig.max_pixels` is the limit
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # parallelism comes from the number of workers


@final
class UnusableImageError(Exception):
    """This image cannot be cut. Its views are recorded as rejected, and the work goes on.

    Both texts are stored in the cache's `rejected` table: another wording changes the bytes of caches.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@final
@dataclass(slots=True, eq=False, kw_only=True)
class Picture:
    """An image that can be cut. It is decoded when a part of it is needed, once at each scale."""

    width: int
    """Width of the upright image (pixels)."""
    height: int
    """Height of the upright image (pixels)."""
    jpeg: bytes = b""
    """The file, where it can be decoded at several scales; otherwise empty."""
    orientation: int = 1
    """The value of its EXIF orientation tag."""
    decoded: dict[int, Image.Image] = field(default_factory=dict)
    """Upright RGB at each scale, by the divisor of its size."""
    opened: list[ImageFile.ImageFile] = field(default_factory=list)
    """The file with its header read, which the first decoding uses; empty after that."""

    def scaled_for(self, box: Box, side: int) -> tuple[Image.Image, Box]:
        """Return the upright RGB image at the scale at which a box is to be resized, and the box at that scale.

        The scale depends only on the file, the box and the side, so a view's canvas and details are the same whether
        they are cut together or not.

        Args:
            box: the box in the upright image (pixels).
            side: side of the square that the box will become (pixels).

        Raises:
            UnusableImageError: the file is damaged.
        """
        shrink = self._shrink(box, side)
        if shrink not in self.decoded:
            with _unusable_when_it_raises():
                file = self.opened.pop() if self.opened else _open(self.jpeg)
                self.decoded[shrink] = _upright_rgb(file, shrink, self.orientation)
        image = self.decoded[shrink]
        # a size that is not divisible is rounded up, at the right and bottom edge of the stored image
        across = image.width - self.width / shrink if self.orientation in MIRRORED_ACROSS else 0.0
        down = image.height - self.height / shrink if self.orientation in MIRRORED_DOWN else 0.0
        left, top, right, bottom = (edge / shrink for edge in box)
        return image, (left + across, top + down, right + across, bottom + down)

    def _shrink(self, box: Box, side: int) -> int:
        if not self.jpeg:
            return 1
        most = max(min(box[2] - box[0], box[3] - box[1]) / (OVERSAMPLING * side), 1)
        # a window at the canvas's own scale must get the canvas's scale, though its box is rounded
        return next(shrink for shrink in SHRINKS if shrink <= most * (1 + 1e-9))


def open_picture(body: bytes, limits: ViewsConfig) -> Picture:
    """Read an image's header. Decode it as well where its format cannot be decoded at several scales.

    Rules: the first frame of an animation; EXIF orientation applied; alpha composited over white; 16-bit grey divided
    by 257, 16-bit colour cut to its high byte; CMYK, palettes and other modes as Pillow converts them to RGB; colour
    profiles ignored.

    Args:
        body: the file's bytes.
        limits: `min_side`, `max_pixels` and `max_aspect`, which are checked before decoding.

    Raises:
        UnusableImageError: with the reason. Floating-point and 32-bit images are refused, because their files do not
            define which value is white.
    """
    if not body:
        raise UnusableImageError("empty", "zero bytes")
    with _unusable_when_it_raises():
        image = _open(body)
        _check_header(image, limits)
        if isinstance(image, JpegImageFile):
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            width, height = image.size if orientation not in (5, 6, 7, 8) else image.size[::-1]
            return Picture(width=width, height=height, jpeg=body, orientation=orientation, opened=[image])
        upright = _upright_rgb(image)
        return Picture(width=upright.width, height=upright.height, decoded={1: upright})


def prepare_cutting() -> None:
    """Prepare a process to cut many images.

    Memory: glibc returns the top of its heap to the system whenever a decoded image is freed, and the system clears
    those pages again for the next image. Allocating and freeing one large block raises glibc's thresholds, so that it
    keeps the memory instead: up to twice the largest block that was freed, of those up to 32 MiB; see
    `M_MMAP_THRESHOLD` in mallopt(3). Other C libraries are not affected.

    Pixels: Pillow encodes an image to bytes in one piece instead of joining pieces of 64 KiB.
    """
    np.empty(TRACKED_BLOCK_BYTES, dtype=np.uint8)
    ImageFile.MAXBLOCK = ENCODER_BUFFER_BYTES


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Suppress Pillow's warnings about broken EXIF and the like: the rules above already decide those cases."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextmanager
def _unusable_when_it_raises() -> Iterator[None]:
    try:
        yield
    except UnusableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnusableImageError("not an image", f"none of {', '.join(FORMATS)}") from error
    except Exception as error:  # a decoder may raise anything on arbitrary bytes
        raise UnusableImageError("damaged", f"{type(error).__name__}: {error}") from error


def _open(body: bytes) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(body), formats=FORMATS)
    image.decodermaxblock = len(body)  # in one piece: at the end of a piece libjpeg decodes a row of blocks again
    return image


def _check_header(image: Image.Image, limits: ViewsConfig) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise UnusableImageError("too many pixels", f"{width} × {height}, at most {limits.max_pixels}")
    if min(width, height) < limits.min_side:
        raise UnusableImageError("too small", f"{width} × {height}, sides of at least {limits.min_side}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise UnusableImageError("too elongated", f"{width} × {height}, at most {limits.max_aspect:g} : 1")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow scales a PPM to 16 bits
        raise UnusableImageError("unknown range", f"mode {image.mode} does not say what value is white")


def _upright_rgb(file: ImageFile.ImageFile, shrink: int = 1, orientation: int | None = None) -> Image.Image:
    if shrink > 1:
        file.draft(file.mode, (file.width // shrink, file.height // shrink))
    file.load()
    if orientation != 1:  # formats other than JPEG may store it after the pixels
        ImageOps.exif_transpose(file, in_place=True)
    image: Image.Image = file
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    # convert("RGB") would clip at 255, which makes almost every such image white, and lose the transparent value
    values = np.asarray(image).astype(np.int32)
    values[values == image.info.get("transparency", -1)] = 65535
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
