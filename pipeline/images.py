"""Source images: finding them, and bringing whatever Pillow reads to upright RGB by stated rules."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import fsspec
import numpy as np
from fsspec.core import split_protocol
from PIL import Image, ImageOps, UnidentifiedImageError

from storage_schemas.errors import MissingError, Problem, SettingError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Files of a folder that are taken for images (case is ignored); others are left alone."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, whatever the file is called. Pillow reads more; for some of that (EPS) it runs a program."""

Image.MAX_IMAGE_PIXELS = None  # `decode` has its own limit, which is a setting


@final
@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SourceImage:
    """One image of the list."""

    key: str
    """Stable name: its path below DATA."""
    uri: str
    """Where its bytes are."""


@final
class UnusableImageError(Exception):
    """This image cannot be cut. It goes to the table of rejected views, and the work goes on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def list_images(data: str) -> list[SourceImage]:
    """List the images of a folder and the folders below it, sorted by key.

    Args:
        data: a folder on any file system that fsspec reaches.

    Raises:
        MissingError: no folder is named, there is none of that name, or no image in it.
        SettingError: a file's name is not UTF-8, so no table can hold it.
    """
    if not data:
        raise _no_data("--data", "is not given", "set DATA to a folder of images")
    filesystem, root = fsspec.url_to_fs(data)
    root = root.rstrip("/")
    if not filesystem.isdir(root):
        raise _no_data(data, "is not a folder", "set DATA to a folder of images")
    keys = [path.removeprefix(f"{root}/") for path in filesystem.find(root) if _suffix(path) in SUFFIXES]
    if not keys:
        raise _no_data(data, "holds no image", f"images end in {', '.join(sorted(SUFFIXES))}")
    if odd := [Problem(place=repr(key), found="its name is not UTF-8", fix="rename it") for key in keys if _odd(key)]:
        raise SettingError("DATA", odd)
    return sorted(SourceImage(key=key, uri=filesystem.unstrip_protocol(f"{root}/{key}")) for key in keys)


def read_bytes(image: SourceImage) -> bytes:
    """Return an image's bytes.

    A file that cannot be read says nothing of the image in it: a disk that is full or gone, a key that expired. So it
    ends the run, which resumes, and is not put down as rejected, which is for good.

    Raises:
        MissingError: they cannot be read.
    """
    try:
        with fsspec.filesystem(split_protocol(image.uri)[0] or "file").open(image.uri, "rb") as file:
            return file.read()
    except OSError as error:
        found = f"cannot be read: {type(error).__name__}"
        fix = "bring it back and run again, it resumes; or put an empty file in its place, which is then rejected"
        raise MissingError("source image", [Problem(place=image.uri, found=found, fix=fix)]) from error


def decode(body: bytes, *, min_side: int, max_pixels: int) -> Image.Image:
    """Decode an image to upright RGB, 8 bits a channel.

    Rules: the first frame of an animation; EXIF orientation applied; alpha composited over white; grey of 16 bits
    divided by 257, colour of 16 bits cut to its high byte; CMYK, palette and others as Pillow converts them to RGB;
    colour profiles left aside.

    Args:
        body: the file's bytes.
        min_side: shortest side accepted (pixels).
        max_pixels: most pixels accepted, checked before decoding.

    Raises:
        UnusableImageError: with the reason. Floating point and 32-bit values are refused: they do not say what is
            white.
    """
    if not body:
        raise UnusableImageError("empty", "zero bytes")
    with _unusable_when_it_raises():
        image = Image.open(io.BytesIO(body), formats=FORMATS)
    _check_header(image, min_side, max_pixels)
    with _unusable_when_it_raises():
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)


@contextmanager
def _unusable_when_it_raises() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF and the like, which the rules have decided
            yield
    except UnidentifiedImageError as error:
        raise UnusableImageError("not an image", f"none of {', '.join(FORMATS)}") from error
    except Exception as error:  # on bytes from anywhere a decoder may raise anything
        raise UnusableImageError("damaged", f"{type(error).__name__}: {error}") from error


def _check_header(image: Image.Image, min_side: int, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise UnusableImageError("too many pixels", f"{width} × {height}, at most {max_pixels}")
    if min(width, height) < min_side:
        raise UnusableImageError("too small", f"{width} × {height}, sides of at least {min_side}")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow scales a PPM's to 16 bits
        raise UnusableImageError("unknown range", f"mode {image.mode} does not say what value is white")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    # convert("RGB") would clip at 255 and whiten nearly every such image, and lose its transparent value
    values = np.asarray(image).astype(np.int32)
    values[values == image.info.get("transparency", -1)] = 65535
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def _no_data(place: str, found: str, fix: str) -> MissingError:
    return MissingError("DATA", [Problem(place=place, found=found, fix=fix)])


def _suffix(path: str) -> str:
    return f".{path.rpartition('.')[2].lower()}"


def _odd(key: str) -> bool:
    return key.encode(errors="ignore").decode() != key
