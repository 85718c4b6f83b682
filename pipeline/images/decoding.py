"""Images: bringing whatever Pillow reads to upright RGB by stated rules, or saying why not; docs/images.md has them.

A JPEG can be decoded at a half, a quarter or an eighth of its size, which takes a fraction of the time. That is done
where a box is brought to so few pixels that it makes next to no difference."""

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
"""What is decoded, whatever the file is called. Pillow reads more; for some of that (EPS) it runs a program."""
SHRINKS = (8, 4, 2, 1)
"""What the size of a JPEG can be divided by while it is decoded."""
OVERSAMPLING = 3
"""Pixels that a box has left after that for each pixel it is brought to, along each axis, at least."""
MIRRORED_ACROSS, MIRRORED_DOWN = frozenset({2, 3, 6, 7}), frozenset({3, 4, 7, 8})
"""EXIF orientations under which the upright left edge, or top edge, is a far edge of the image as it is stored."""

KEPT_BLOCK = 2**25 - 2**16
"""Bytes: glibc takes notice of blocks of up to 32 MiB."""
PIECE_BYTES = 8 * 2**20
"""The largest canvases have half as many."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom (pixels)."""

Image.MAX_IMAGE_PIXELS = None  # there is a limit of our own, which is a setting
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a worker has its share of the cores


@final
class UnusableImageError(Exception):
    """This image cannot be cut. It goes to the table of rejected views, and the work goes on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@final
@dataclass(slots=True, eq=False, kw_only=True)
class Picture:
    """An image that is fit to be cut. It is decoded when a part is asked for, each scale once."""

    width: int
    """Of the upright image (pixels)."""
    height: int
    """Of the upright image (pixels)."""
    jpeg: bytes = b""
    """The file, where it can be decoded at several scales; else empty."""
    orientation: int = 1
    """How it is stored: the value of its EXIF tag."""
    decoded: dict[int, Image.Image] = field(default_factory=dict)
    """Upright RGB by what its size was divided by."""
    opened: list[ImageFile.ImageFile] = field(default_factory=list)
    """The file with its header read, for the first decoding: none of them after that."""

    def showing(self, box: Box, side: int) -> tuple[Image.Image, Box]:
        """Return upright RGB fit to be brought from a box to so many pixels, and where the box lies in it.

        Which scale that is follows from the file, the box and the side alone, so a view's canvas and details are the
        same whether they are cut together or not.

        Args:
            box: in the upright image.
            side: of the square that the box will become (pixels).

        Raises:
            UnusableImageError: the file is damaged.
        """
        shrink = self._shrink(box, side)
        if shrink not in self.decoded:
            with _unusable_when_it_raises():
                file = self.opened.pop() if self.opened else _open(self.jpeg)
                self.decoded[shrink] = _upright_rgb(file, shrink, self.orientation)
        image = self.decoded[shrink]
        # a size that cannot be divided is rounded up, at the far edges of the image as it is stored
        across = image.width - self.width / shrink if self.orientation in MIRRORED_ACROSS else 0.0
        down = image.height - self.height / shrink if self.orientation in MIRRORED_DOWN else 0.0
        left, top, right, bottom = (edge / shrink for edge in box)
        return image, (left + across, top + down, right + across, bottom + down)

    def _shrink(self, box: Box, side: int) -> int:
        if not self.jpeg:
            return 1
        room = min(box[2] - box[0], box[3] - box[1]) / (OVERSAMPLING * side)
        # a window at the canvas's own scale must not fall beside the canvas for the rounding of its box
        return next(shrink for shrink in SHRINKS if shrink <= max(room, 1) * (1 + 1e-9))


def open_picture(body: bytes, limits: ViewsConfig) -> Picture:
    """Read an image's header, and all of it where it cannot be decoded at several scales.

    Rules: the first frame of an animation; EXIF orientation applied; alpha composited over white; grey of 16 bits
    divided by 257, colour of 16 bits cut to its high byte; CMYK, palette and others as Pillow converts them to RGB;
    colour profiles left aside.

    Args:
        body: the file's bytes.
        limits: `min_side`, `max_pixels` and `max_aspect`, which are checked before decoding.

    Raises:
        UnusableImageError: with the reason. Floating point and 32-bit values are refused: they do not say what is
            white.
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
    """Set up a process that cuts many images.

    The C library keeps what one image leaves for the next. Else it gives the top of its memory back to the system
    whenever a decoded image leaves it, and has it cleared page by page for the next one. glibc keeps twice the largest
    block that was ever freed, of those that are no larger than this one; see `M_MMAP_THRESHOLD` in mallopt(3). Other
    libraries do not mind.

    Pixels leave Pillow in one piece. Else it gives 64 KiB at a time, and joins them."""
    np.empty(KEPT_BLOCK, dtype=np.uint8)
    ImageFile.MAXBLOCK = PIECE_BYTES


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Hold back what Pillow warns of: broken EXIF and the like, which the rules have decided."""
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
    except Exception as error:  # on bytes from anywhere a decoder may raise anything
        raise UnusableImageError("damaged", f"{type(error).__name__}: {error}") from error


def _open(body: bytes) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(body), formats=FORMATS)
    image.decodermaxblock = len(body)  # in one piece: where bytes run out, libjpeg begins a row of blocks again
    return image


def _check_header(image: Image.Image, limits: ViewsConfig) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise UnusableImageError("too many pixels", f"{width} × {height}, at most {limits.max_pixels}")
    if min(width, height) < limits.min_side:
        raise UnusableImageError("too small", f"{width} × {height}, sides of at least {limits.min_side}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise UnusableImageError("too elongated", f"{width} × {height}, at most {limits.max_aspect:g} : 1")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow scales a PPM's to 16 bits
        raise UnusableImageError("unknown range", f"mode {image.mode} does not say what value is white")


def _upright_rgb(file: ImageFile.ImageFile, shrink: int = 1, orientation: int | None = None) -> Image.Image:
    if shrink > 1:
        file.draft(file.mode, (file.width // shrink, file.height // shrink))
    file.load()
    if orientation != 1:  # other files than JPEG may tell it behind their pixels
        ImageOps.exif_transpose(file, in_place=True)
    image: Image.Image = file
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    # convert("RGB") would clip at 255 and whiten nearly every such image, and lose its transparent value
    values = np.asarray(image).astype(np.int32)
    values[values == image.info.get("transparency", -1)] = 65535
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
