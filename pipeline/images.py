"""Source images: finding them, and bringing whatever Pillow reads to upright RGB by stated rules."""

import io
import warnings
from dataclasses import dataclass
from typing import final

import fsspec
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from storage_schemas.errors import MissingError, Problem

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Files of a folder that are taken for images (case is ignored); others are left alone."""


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
        MissingError: no folder is named, there is no such folder, or no image in it.
    """
    if not data:
        raise MissingError(
            "DATA", [Problem(place="--data", found="is not given", fix="set DATA to a folder of images")]
        )
    filesystem, root = fsspec.url_to_fs(data)
    root = root.rstrip("/")
    if not filesystem.isdir(root):
        fix = "set DATA to a folder of images"
        raise MissingError("DATA", [Problem(place=data, found="is not a folder", fix=fix)])
    keys = (path.removeprefix(f"{root}/") for path in filesystem.find(root))
    images = sorted(
        SourceImage(key=key, uri=filesystem.unstrip_protocol(f"{root}/{key}"))
        for key in keys
        if _suffix(key) in SUFFIXES
    )
    if not images:
        fix = f"images end in {', '.join(sorted(SUFFIXES))}"
        raise MissingError("DATA", [Problem(place=data, found="holds no image", fix=fix)])
    return images


def read_bytes(image: SourceImage) -> bytes:
    """Return an image's bytes.

    Raises:
        UnusableImageError: they cannot be read, or there are none.
    """
    try:
        with fsspec.open(image.uri, "rb") as file:
            body = file.read()
    except OSError as error:
        raise UnusableImageError("unreadable", type(error).__name__) from error
    if not body:
        raise UnusableImageError("empty", "zero bytes")
    return body


def decode(body: bytes, *, min_side: int, max_pixels: int) -> Image.Image:
    """Decode an image to upright RGB, 8 bits a channel.

    Rules: the first frame of an animation; EXIF orientation applied; alpha composited over white; 16 bits brought to
    8 by dividing by 257; CMYK, grey, palette and others as Pillow converts them to RGB.

    Args:
        body: the file's bytes.
        min_side: shortest side accepted (pixels).
        max_pixels: most pixels accepted, checked before decoding.

    Raises:
        UnusableImageError: with the reason.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is decided here: sizes, broken EXIF
        image = _open(body)
        _check_size(image, min_side, max_pixels)
        return _to_rgb(_load(image))


def _open(body: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(body))
    except UnidentifiedImageError as error:
        raise UnusableImageError("not an image", "no format that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise UnusableImageError("too many pixels", str(error)) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UnusableImageError("damaged", str(error)) from error


def _check_size(image: Image.Image, min_side: int, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise UnusableImageError("too many pixels", f"{width} × {height}, at most {max_pixels}")
    if min(width, height) < min_side:
        raise UnusableImageError("too small", f"{width} × {height}, sides of at least {min_side}")


def _load(image: Image.Image) -> Image.Image:
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise UnusableImageError("damaged", str(error)) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # convert("RGB") would clip at 255 and whiten nearly every 16-bit image
        deep = np.asarray(image, dtype=np.float64) / 257
        image = Image.fromarray(np.clip(np.rint(deep), 0, 255).astype(np.uint8), mode="L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _suffix(key: str) -> str:
    return f".{key.rpartition('.')[2].lower()}"
