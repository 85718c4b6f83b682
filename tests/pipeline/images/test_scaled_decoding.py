"""JPEGs that are decoded at a reduced size: almost the same pixels, at the same places."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import ViewsConfig
from pipeline.images.decoding import Picture, open_picture
from pipeline.images.unusable import UnusableImageError
from pipeline.recipes.demo_images import copy_photographs
from pipeline.views.crop import Crop, cut_canvas

LIMITS = ViewsConfig(min_side=1)
DETAILED = (
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "text.png",
)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    """A JPEG file."""
    body = io.BytesIO()
    image.save(body, "JPEG", **({"quality": 92} | options))
    return body.getvalue()


def whole(body: bytes) -> Picture:
    """A JPEG that is decoded at its full size and then turned upright."""
    image = Image.open(io.BytesIO(body))
    turned = {6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}
    turned |= {2: Image.Transpose.FLIP_LEFT_RIGHT, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    turned |= {5: Image.Transpose.TRANSPOSE, 7: Image.Transpose.TRANSVERSE}
    orientation = image.getexif().get(0x0112, 1)
    upright = image.convert("RGB") if orientation == 1 else image.convert("RGB").transpose(turned[orientation])
    return Picture(width=upright.width, height=upright.height, decoded={1: upright})


def shrinks(picture: Picture) -> Sequence[int]:
    """The divisors at which it was decoded."""
    return list(picture.decoded)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with much detail."""
    folder = tmp_path_factory.mktemp("photographs")
    copy_photographs(str(folder))
    return folder


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("name", DETAILED)
def test_pixels_are_almost_those_of_the_whole_image(photographs: Path, name: str, shrink: int) -> None:
    body = jpeg(Image.open(photographs / name).convert("RGB"))
    scaled = open_picture(body, LIMITS)
    length = 0.7 * min(scaled.width, scaled.height)
    crop = Crop(left=0.13 * scaled.width, top=0.21 * scaled.height, width=length, height=length, flip=False)
    side = int(length / shrink / 3)
    apart = np.abs(cut_canvas(scaled, crop, side).pixels().astype(int) - cut_canvas(whole(body), crop, side).pixels())
    assert shrinks(scaled) == [shrink]
    assert apart.max() <= 6
    assert apart.mean() <= 0.6


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [(1003, 998), (1001, 1007)])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shrink", [2, 8])
def test_boxes_are_at_their_place_in_the_upright_image(
    size: tuple[int, int], orientation: int, shrink: int, axis: int
) -> None:
    # red rises and blue falls along an axis, so half their difference says where a pixel is: by 0.25 levels a pixel
    rising = np.meshgrid(*(np.linspace(0, 255, length) for length in size))[axis]
    exif = Image.Exif()
    exif[0x0112] = orientation
    places = Image.fromarray(np.stack([rising, 0 * rising, 255 - rising], axis=2).round().astype(np.uint8))
    body = jpeg(places, subsampling=0, quality=98, exif=exif)
    scaled, full = open_picture(body, LIMITS), whole(body)
    assert (scaled.width, scaled.height) == (full.width, full.height)
    crop = Crop(left=100.3, top=207.7, width=610.9, height=605.1, flip=False)
    side = 600 // shrink // 3
    red, _, blue = (cut_canvas(scaled, crop, side).pixels().astype(float) - cut_canvas(full, crop, side).pixels()).mean(
        axis=(0, 1)
    )
    assert shrinks(scaled) == [shrink]
    assert abs(red - blue) / 2 < 0.25 * 3 * shrink / 25, "at most a twenty-fifth of a canvas pixel"


@pytest.mark.parametrize(
    ("length", "side", "expected"),
    [(480, 160, 1), (959, 160, 1), (960, 160, 2), (1919, 160, 2), (1920, 160, 4), (3840, 160, 8), (4000, 16, 8)],
)
def test_three_pixels_are_decoded_for_each_pixel_of_the_result(length: int, side: int, expected: int) -> None:
    picture = open_picture(jpeg(Image.new("RGB", (4100, 4000))), LIMITS)
    image, box = picture.scaled_for((7, 5, 100 + length, 5 + length), side)
    assert shrinks(picture) == [expected]
    assert image.size == (-(-4100 // expected), -(-4000 // expected))
    assert box == tuple(edge / expected for edge in (7, 5, 100 + length, 5 + length))


def test_each_scale_that_is_needed_is_decoded_once_and_no_other() -> None:
    picture = open_picture(jpeg(Image.new("RGB", (2000, 2000))), LIMITS)
    assert picture.decoded == {}
    quarter, half = (picture.scaled_for((0, 0, 2000, 2000), side)[0] for side in (128, 256))
    assert shrinks(picture) == [4, 2]
    assert picture.scaled_for((0, 0, 1900, 1950), 140)[0] is quarter
    assert picture.scaled_for((500, 0, 2000, 2000), 250)[0] is half


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_grey_cmyk_and_progressive_jpegs_are_decoded_alike(mode: str, progressive: bool) -> None:
    colours = np.zeros((700, 900, 3), np.uint8)
    colours[:, :450] = (200, 60, 20)
    body = jpeg(Image.fromarray(colours).convert(mode), progressive=progressive)
    crop = Crop(left=10, top=20, width=660, height=600, flip=True)
    scaled = open_picture(body, LIMITS)
    apart = np.abs(cut_canvas(scaled, crop, 50).pixels().astype(int) - cut_canvas(whole(body), crop, 50).pixels())
    assert shrinks(scaled) == [4]
    assert apart.max() <= 3


def test_the_first_of_several_pictures_in_a_jpeg_is_taken() -> None:
    first, second = (Image.new("RGB", (800, 600), colour) for colour in ("red", "blue"))
    body = io.BytesIO()
    first.save(body, "MPO", save_all=True, append_images=[second])
    crop = Crop(left=0, top=0, width=600, height=600, flip=False)
    picture = open_picture(body.getvalue(), LIMITS)
    canvas = cut_canvas(picture, crop, 40).pixels()
    assert shrinks(picture) == [4]
    assert np.abs(canvas.astype(int) - (255, 0, 0)).max() <= 2


def test_a_truncated_jpeg_is_refused_at_every_scale() -> None:
    body = jpeg(Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)))
    for side in (20, 40, 80, 160):
        picture = open_picture(body[: len(body) * 3 // 4], LIMITS)
        with pytest.raises(UnusableImageError) as caught:
            picture.scaled_for((0, 0, 800, 800), side)
        assert caught.value.reason == "damaged"


def test_other_formats_are_decoded_at_full_size() -> None:
    body = io.BytesIO()
    Image.new("RGB", (2000, 1500)).save(body, "PNG")
    picture = open_picture(body.getvalue(), LIMITS)
    assert picture.scaled_for((0, 0, 1500, 1500), 16)[0].size == (2000, 1500)
