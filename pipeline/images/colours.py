"""Colours: convert what a decoder gives to RGB; docs/images.md has the rules."""

import numpy as np
from PIL import ExifTags, Image, ImageFile

STRIP_PIXELS = 2**22
"""Pixels that are converted at a time, so that a conversion needs little memory besides its result."""
INVERTED, SIGNED = 0, 2
"""Values of TIFF's tags PhotometricInterpretation (0 is white) and SampleFormat (two's complement)."""


def unknown_range(image: ImageFile.ImageFile) -> str | None:
    """Return why the header of an image does not say which value is white; None where it does."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow scales a PPM to 16 bits
        return f"mode {image.mode} does not say what value is white"
    return None


def unknown_kind(image: ImageFile.ImageFile) -> str | None:
    """Return why an image of this kind cannot be converted to RGB; None where it can be."""
    if _tiff_tag(image, ExifTags.Base.SampleFormat, 1) == SIGNED:
        return "a TIFF of signed samples"
    return "colours in CIELAB" if image.mode == "LAB" else None


def to_rgb(image: Image.Image, stored: ImageFile.ImageFile) -> Image.Image:
    """Return an image as RGB, over white where it is transparent.

    Args:
        image: the decoded image.
        stored: the file that it comes from.
    """
    if image.mode.startswith("I"):
        image = _from_deep_grey(image, _white(stored), _tiff_tag(stored, ExifTags.Base.PhotometricInterpretation, 1))
    if image.mode == "La":
        image = image.convert("LA")
    if image.format == "BMP" or stored.format == "BMP":
        image = _opaque_if_invisible(image)
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_rgb_of_version_0_1(image: Image.Image) -> Image.Image:
    """Return an image as RGB as version 0.1 did: grey of 12 bits as if it had 16, and a bitmap's alpha as it is."""
    if image.mode.startswith("I"):
        image = _from_deep_grey(image, 65535, photometric=1)
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _tiff_tag(image: ImageFile.ImageFile, tag: int, default: int) -> int:
    if image.format != "TIFF":
        return default
    value = image.tag_v2.get(tag, default)  # type: ignore[attr-defined]  # a TiffImageFile has it
    return int(value[0] if isinstance(value, tuple) else value)


def _white(stored: ImageFile.ImageFile) -> int:
    """Return the largest value of grey of more than 8 bits. Formats other than TIFF come scaled to 16 bits."""
    return int(2 ** _tiff_tag(stored, ExifTags.Base.BitsPerSample, 16) - 1)


def _from_deep_grey(image: Image.Image, white: int, photometric: int) -> Image.Image:
    # convert("RGB") would clip at 255, which makes almost every such image white, and lose the transparent value
    levels = np.rint(np.minimum(np.arange(65536), white) / (white / 255)).astype(np.uint8)
    if photometric == INVERTED:
        levels = 255 - levels
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and 0 <= transparent < len(levels):
        levels[transparent] = 255
    grey = Image.new("L", image.size)
    for box in _strips(image):
        grey.paste(Image.fromarray(levels[np.asarray(image.crop(box))]), box)
    return grey


def _opaque_if_invisible(image: Image.Image) -> Image.Image:
    """Return an image without its alpha channel if that makes every pixel invisible."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image


def _over_white(image: Image.Image) -> Image.Image:
    rgb = Image.new("RGB", image.size)
    for box in _strips(image):
        strip = image.crop(box).convert("RGBA")
        rgb.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), box)
    return rgb


def _strips(image: Image.Image) -> list[tuple[int, int, int, int]]:
    rows = max(1, STRIP_PIXELS // image.width)
    return [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]
