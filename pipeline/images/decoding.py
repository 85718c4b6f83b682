"""Decoding: turn an image file into upright RGB, or say why that is not possible; docs/images.md has the rules.

A JPEG can be decoded at a half, a quarter or an eighth of its size in a fraction of the time. This is done where the
box is resized to so few pixels that the result is almost the same.
"""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar, final

import numpy as np
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.config import OLD_RULES, ImageRules, ViewsConfig
from pipeline.images.colours import to_rgb, to_rgb_of_version_0_1, unknown_kind, unknown_range
from pipeline.images.libjpeg import spoilt_data
from pipeline.images.limits import DECODER_BYTES, DECODER_BYTES_PER_PIXEL
from pipeline.images.metadata import TURNS, orientation_of, without_metadata
from pipeline.images.unusable import UnusableImageError

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

NO_UNPACKER = "unknown raw mode"
"""What Pillow says of samples that its plugin for a format knows, and its decoder does not."""

Result = TypeVar("Result")
Box = tuple[float, float, float, float]
"""Left, top, right, bottom (pixels)."""

Image.MAX_IMAGE_PIXELS = None  # `ViewsConfig.max_pixels` is the limit
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # parallelism comes from the number of workers


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
    rules: ImageRules = "strict"
    """Rules by which it is decoded."""
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
            MemoryError: there is too little memory to decode it.
        """
        shrink = self._shrink(box, side)
        if shrink not in self.decoded:
            self.decoded[shrink] = _usable(lambda: self._decode(shrink), self.jpeg)
        image = self.decoded[shrink]
        # a size that is not divisible is rounded up, at the right and bottom edge of the stored image
        across = image.width - self.width / shrink if self.orientation in MIRRORED_ACROSS else 0.0
        down = image.height - self.height / shrink if self.orientation in MIRRORED_DOWN else 0.0
        left, top, right, bottom = (edge / shrink for edge in box)
        return image, (left + across, top + down, right + across, bottom + down)

    def _decode(self, shrink: int) -> Image.Image:
        file = self.opened.pop() if self.opened else _open(self.jpeg)
        image = _upright_rgb(file, self.rules, shrink, self.orientation)
        if self.rules == "strict" and not self.decoded and (warning := spoilt_data(self.jpeg)):
            raise UnusableImageError("damaged", f"libjpeg: {warning}")
        return image

    def _shrink(self, box: Box, side: int) -> int:
        if not self.jpeg:
            return 1
        most = max(min(box[2] - box[0], box[3] - box[1]) / (OVERSAMPLING * side), 1)
        # a window at the canvas's own scale must get the canvas's scale, though its box is rounded
        return next(shrink for shrink in SHRINKS if shrink <= most * (1 + 1e-9))


def open_picture(body: bytes, limits: ViewsConfig) -> Picture:
    """Read an image's header. Decode it as well where its format cannot be decoded at several scales.

    Rules: the first frame of an animation; EXIF orientation applied; alpha composited over white; grey of more than 8
    bits divided by the largest value of its depth, colour of more than 8 bits cut to its high byte; CMYK, palettes and
    other modes as Pillow converts them to RGB; colour profiles and all other metadata ignored.

    Args:
        body: the file's bytes.
        limits: `min_side`, `max_pixels` and `max_aspect`, which are checked before decoding; and `rules`.

    Raises:
        UnusableImageError: with the reason.
        MemoryError: there is too little memory to decode it, which says nothing about the image.
    """
    if not body:
        raise UnusableImageError("empty", "zero bytes")
    if limits.rules == OLD_RULES:
        return _usable(lambda: _opened([body], limits), body)
    try:
        return _usable(lambda: _opened(without_metadata(body), limits), body)
    except UnusableImageError as error:
        if NO_UNPACKER in error.detail:
            raise UnusableImageError("unknown kind", "its samples are packed in a way that is not decoded") from error
        if error.reason == "not an image" and (name := _begins_like(body)):
            found = f"it begins like {name}, but its header is damaged, or of a kind that is not decoded"
            raise UnusableImageError("unknown kind", found) from error
        raise


def pixels_of(body: bytes) -> int:
    """Return how many pixels a file's header says that it has; 0 where its header cannot be read.

    Raises:
        MemoryError: there is too little memory to read it.
    """
    try:
        width, height = _open(body).size
    except MemoryError:
        raise
    except Exception:  # a decoder may raise anything on arbitrary bytes
        return 0
    return width * height


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


def _usable(step: Callable[[], Result], body: bytes) -> Result:
    """Return what a step decodes, or raise the reason why the image cannot be decoded.

    Codecs have many names for a lack of memory, "broken data stream" among them. So a step that fails is repeated once
    as much memory as a decoder may need was seen to be free. Only the second failure counts as the image's fault.
    """
    try:
        return step()
    except (UnusableImageError, MemoryError):
        raise
    except Exception:  # a decoder may raise anything on arbitrary bytes
        _require_memory(body)
    try:
        return step()
    except (UnusableImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnusableImageError("not an image", f"none of {', '.join(FORMATS)}") from error
    except Exception as error:
        raise UnusableImageError("damaged", f"{type(error).__name__}: {error}") from error


def _require_memory(body: bytes) -> None:
    np.empty(DECODER_BYTES + DECODER_BYTES_PER_PIXEL * pixels_of(body), dtype=np.uint8)


def _opened(forms: Iterable[bytes], limits: ViewsConfig) -> Picture:
    """Open the first of several forms of a file that can be opened; see `without_metadata`."""
    failures: list[Exception] = []
    for form in forms:
        try:
            return _opened_form(form, limits)
        except (UnusableImageError, MemoryError):
            raise
        except Exception as error:
            failures.append(error)
    try:
        raise failures[0]
    finally:
        failures.clear()  # with their tracebacks they would keep this frame, and the memory of the decoder, alive


def _opened_form(body: bytes, limits: ViewsConfig) -> Picture:
    image, rules = _open(body), limits.rules
    _check_header(image, limits)
    if not isinstance(image, JpegImageFile):
        upright = _upright_rgb(image, rules)
        return Picture(width=upright.width, height=upright.height, decoded={1: upright}, rules=rules)
    old = rules == OLD_RULES
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if old else orientation_of(image)
    width, height = image.size if orientation not in (5, 6, 7, 8) else image.size[::-1]
    return Picture(width=width, height=height, jpeg=body, orientation=orientation, opened=[image], rules=rules)


def _begins_like(body: bytes) -> str | None:
    accepts = {name: Image.OPEN[name][1] for name in FORMATS}
    return next((name for name, accept in accepts.items() if accept and accept(body[:16]) is True), None)


def _open(body: bytes) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(body), formats=FORMATS)
    image.decodermaxblock = len(body)  # in one piece: at the end of a piece libjpeg decodes a row of blocks again
    return image


def _check_header(image: ImageFile.ImageFile, limits: ViewsConfig) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise UnusableImageError("too many pixels", f"{width} × {height}, at most {limits.max_pixels}")
    if min(width, height) < limits.min_side:
        raise UnusableImageError("too small", f"{width} × {height}, sides of at least {limits.min_side}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise UnusableImageError("too elongated", f"{width} × {height}, at most {limits.max_aspect:g} : 1")
    if found := unknown_range(image):
        raise UnusableImageError("unknown range", found)
    if limits.rules != OLD_RULES and (found := unknown_kind(image)):
        raise UnusableImageError("unknown kind", found)


def _upright_rgb(
    file: ImageFile.ImageFile, rules: ImageRules, shrink: int = 1, orientation: int | None = None
) -> Image.Image:
    if shrink > 1:
        file.draft(file.mode, (file.width // shrink, file.height // shrink))
    file.load()
    if rules == OLD_RULES:
        if orientation != 1:  # formats other than JPEG may store it after the pixels
            ImageOps.exif_transpose(file, in_place=True)
        return to_rgb_of_version_0_1(file)
    turn = TURNS.get(orientation_of(file) if orientation is None else orientation)
    return to_rgb(file if turn is None else file.transpose(turn), file)
