"""Decoding: the rule for each kind of image, and the reason for each image that is refused."""

import io
import platform
import random
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from packaging.version import Version
from PIL import Image, features

from pipeline.config import ViewsConfig
from pipeline.images.decoding import FORMATS, open_picture
from pipeline.images.unusable import UnusableImageError

WIDTH, HEIGHT = 40, 30
ROWS, COLS = np.mgrid[:HEIGHT, :WIDTH]
COLOURS = np.stack([6 * COLS, 8 * ROWS, 3 * (ROWS + COLS)], axis=2).astype(np.uint8)
GREYS_16 = (ROWS * WIDTH + COLS).astype(np.uint16) * 54
ALPHA = (7 * (ROWS + COLS) % 256).astype(np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    body = io.BytesIO()
    image.save(body, form, **options)
    return body.getvalue()


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """A PNG, chunk by chunk: for what Pillow reads and cannot write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def decoded(body: bytes, **limits: Any) -> np.ndarray:
    """The pixels of the whole image, as integers."""
    picture = open_picture(body, ViewsConfig(**({"min_side": 1, "max_pixels": 10**6} | limits)))
    image, box = picture.scaled_for((0, 0, picture.width, picture.height), max(picture.width, picture.height))
    assert (image.mode, image.size) == ("RGB", (picture.width, picture.height))
    assert box == (0, 0, picture.width, picture.height)
    return np.asarray(image).astype(int)


def reason(body: bytes, **limits: Any) -> tuple[str, str]:
    """The reason and the detail with which an image is refused."""
    with pytest.raises(UnusableImageError) as caught:
        decoded(body, **limits)
    return caught.value.reason, caught.value.detail


# how an upright picture is stored under each EXIF orientation, as the standard has it: the side that row 0 and
# column 0 are on
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 4),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 4),
    ],
)
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(orientation: int, form: str, options: dict[str, Any], tolerance: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](COLOURS)))
    found = decoded(encoded(stored, form, exif=exif, **options))
    assert np.abs(found - COLOURS).max() <= tolerance


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ("BMP", {}, 0),
        ("PNG", {}, 0),
        ("PPM", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG2000", {}, 0),
        ("JPEG2000", {"no_jp2": True}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 4),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 4),
    ],
)
def test_8_bit_colour_is_not_changed(form: str, options: dict[str, Any], tolerance: int) -> None:
    assert np.abs(decoded(encoded(Image.fromarray(COLOURS), form, **options)) - COLOURS).max() <= tolerance


def test_grey_gives_three_equal_channels() -> None:
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(ALPHA))), np.stack([ALPHA] * 3, axis=2))


def test_one_bit_gives_black_and_white() -> None:
    bits = (ROWS + COLS) % 3 == 0
    found = decoded(encoded(Image.fromarray(bits)))
    np.testing.assert_array_equal(found, np.where(bits, 255, 0)[:, :, None] * np.ones(3, int))


@pytest.mark.parametrize(
    ("mode", "form", "stored"),
    [
        ("I;16", "PNG", GREYS_16),
        ("I;16", "TIFF", GREYS_16),
        ("I;16B", "TIFF", GREYS_16.astype(">u2")),
        ("I", "PPM", GREYS_16),
        ("I;16", "JPEG2000", GREYS_16),
    ],
)
def test_grey_of_16_bits_is_divided_by_257(mode: str, form: str, stored: np.ndarray) -> None:
    body = encoded(Image.fromarray(stored), form)
    assert Image.open(io.BytesIO(body)).mode == mode
    np.testing.assert_array_equal(decoded(body)[:, :, 0], np.rint(GREYS_16 / 257))


def test_the_transparent_value_of_a_16_bit_png_is_white() -> None:
    body = encoded(Image.fromarray(GREYS_16), transparency=int(GREYS_16[3, 5]))
    expected = np.rint(GREYS_16 / 257)
    expected[3, 5] = 255
    np.testing.assert_array_equal(decoded(body)[:, :, 1], expected)


def test_colour_of_16_bits_is_cut_to_its_high_byte() -> None:
    deep = np.stack([GREYS_16, GREYS_16[::-1], GREYS_16[:, ::-1]], axis=2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    np.testing.assert_array_equal(decoded(png(WIDTH, HEIGHT, 16, 2, rows)), deep >> 8)


def test_cmyk_becomes_the_colour_that_its_inks_leave() -> None:
    inks = np.dstack([COLOURS, ALPHA])
    expected = (255.0 - COLOURS) * (255.0 - ALPHA[:, :, None]) / 255
    assert np.abs(decoded(encoded(Image.fromarray(inks, mode="CMYK"), "TIFF")) - expected).max() <= 1


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    paper = Image.new("CMYK", (WIDTH, HEIGHT), (0, 200, 100, 0))
    assert np.abs(decoded(encoded(paper, "JPEG", quality=95)) - (255, 55, 155)).max() <= 2


def over_white(colours: np.ndarray) -> np.ndarray:
    """Colours composited over white by `ALPHA`."""
    alpha = ALPHA[:, :, None] / 255
    return alpha * colours + (1 - alpha) * 255


def test_colour_with_alpha_is_composited_over_white() -> None:
    found = decoded(encoded(Image.fromarray(np.dstack([COLOURS, ALPHA]))))
    assert np.abs(found - over_white(COLOURS)).max() <= 1


def test_grey_with_alpha_is_composited_over_white() -> None:
    grey = COLOURS[:, :, 0]
    found = decoded(encoded(Image.fromarray(np.dstack([grey, ALPHA]), mode="LA")))
    assert np.abs(found - over_white(grey[:, :, None])).max() <= 1


def test_a_palette_with_alpha_is_composited_over_white() -> None:
    indices = ((ROWS + COLS) % 3).astype(np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    body = encoded(image, transparency=bytes([255, 0, 51]))  # red opaque, green not there, blue at a fifth
    expected = np.array([[255, 0, 0], [255, 255, 255], [204, 204, 255]])[indices]
    assert Image.open(io.BytesIO(body)).mode == "P"
    assert np.abs(decoded(body) - expected).max() <= 1


def test_a_palette_without_alpha_gives_its_colours() -> None:
    indices = ((ROWS + COLS) % 2).astype(np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    np.testing.assert_array_equal(decoded(encoded(image)), np.array([[10, 20, 30], [200, 100, 50]])[indices])


@pytest.mark.parametrize(
    ("form", "options"),
    [("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {}), ("AVIF", {"quality": 100})],
)
def test_the_first_frame_of_an_animation_is_taken(form: str, options: dict[str, Any]) -> None:
    first, second = (Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((250, 20, 20), (20, 20, 250)))
    body = encoded(first, form, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(body)).n_frames == 2
    assert np.abs(decoded(body) - (250, 20, 20)).max() <= 3 * (form == "AVIF")


def test_bytes_after_the_image_in_its_file_are_ignored() -> None:
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(COLOURS)) + b"junk" * 100), COLOURS)


def test_an_empty_file_is_refused() -> None:
    assert reason(b"") == ("empty", "zero bytes")


def test_text_is_refused() -> None:
    expected = "none of AVIF, BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP"
    assert reason(b"<html>not found</html>") == ("not an image", expected)


def test_a_format_for_which_pillow_runs_a_program_is_refused() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n"
    assert Image.open(io.BytesIO(postscript)).format == "EPS"
    assert reason(postscript)[0] == "not an image"


@pytest.mark.parametrize("form", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_a_truncated_file_is_refused(form: str) -> None:
    body = encoded(Image.fromarray(COLOURS), form)
    # libavif before 1.4, which Pillow 11 and 12 bring, does not open an AVIF that is not whole
    is_opened = form != "AVIF" or Version(str(features.version("avif"))) >= Version("1.4")
    assert reason(body[: len(body) * 3 // 4])[0] == ("damaged" if is_opened else "unknown kind")


def test_too_many_pixels_are_refused_undecoded() -> None:
    bomb = png(60000, 60000, 8, 2, b"")  # it has no rows, so decoding it would report it as damaged
    assert reason(bomb) == ("too many pixels", "60000 × 60000, at most 1000000")


def test_the_limit_on_pixels_is_that_of_the_settings_not_pillows() -> None:
    # more than Pillow's 179 million; of one bit each, which takes little memory
    assert reason(png(15000, 12000, 1, 0, b""), max_pixels=10**9)[0] == "damaged"


def test_a_side_that_is_too_short_is_refused() -> None:
    body = encoded(Image.fromarray(COLOURS))
    assert reason(body, min_side=31) == ("too small", "40 × 30, sides of at least 31")
    assert decoded(body, min_side=30).shape == (30, 40, 3)


@pytest.mark.parametrize("size", [(40, 2), (2, 40)])
def test_an_image_that_is_too_elongated_is_refused(size: tuple[int, int]) -> None:
    body = encoded(Image.new("RGB", size))
    assert reason(body, max_aspect=19.9) == ("too elongated", f"{size[0]} × {size[1]}, at most 19.9 : 1")
    assert decoded(body, max_aspect=20).size == 3 * 80


@pytest.mark.parametrize("mode", ["F", "I"])
def test_formats_that_do_not_define_white_are_refused(mode: str) -> None:
    body = encoded(Image.fromarray(COLOURS[:, :, 0]).convert(mode), "TIFF")
    assert reason(body) == ("unknown range", f"mode {mode} does not say what value is white")


def test_arbitrary_bytes_give_an_image_or_a_reason() -> None:
    draws = random.Random(0)
    bodies = [encoded(Image.fromarray(COLOURS), form) for form in FORMATS]
    outcomes: dict[str, str] = {}
    for _ in range(1500):
        body = bytearray(draws.choice(bodies))
        for _ in range(draws.choice((1, 2, 8))):
            body[draws.randrange(min(len(body), 100))] = draws.randrange(256)
        try:
            decoded(bytes(body))
            outcomes["image"] = ""
        except UnusableImageError as error:
            outcomes[error.reason] = outcomes.get(error.reason, "") + error.detail
    assert outcomes.keys() >= {"image", "damaged", "not an image"}
    assert not any(" at 0x" in details for details in outcomes.values()), "tables would differ from run to run"


FAULTS_OF_IMAGES = """
import resource
import numpy as np
from pipeline.images.decoding import prepare_cutting

def faults_of_images():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [np.ones(3 * 2**20, dtype=np.uint8) for _ in range(5)]  # more than twice the largest block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of_images()
given_back = faults_of_images()
prepare_cutting()
faults_of_images()
print(given_back, faults_of_images())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is affected")
def test_memory_of_one_image_is_reused_for_the_next() -> None:
    told = subprocess.run([sys.executable, "-c", FAULTS_OF_IMAGES], check=True, capture_output=True, text=True).stdout
    given_back, kept = map(int, told.split())
    assert kept < 100  # of 76,800 pages
    assert given_back > 10_000
