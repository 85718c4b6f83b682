"""Cutting: boxes that fit into the image, and windows that show what the canvas shows, at any scale."""

import itertools
import math
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import ViewsConfig
from pipeline.images.decoding import Picture
from pipeline.views.crop import Crop, cut_canvas, cut_window, draw_crop
from storage_schemas.format.geometry import CanvasGeometry, Offset


def picture_of(image: Image.Image) -> Picture:
    """An image that is decoded already."""
    return Picture(width=image.width, height=image.height, decoded={1: image})


RESOLUTIONS = (128, 192, 224, 256, 384, 432, 512, 768, 1024, 1152)
TEXTURE = picture_of(Image.fromarray(np.random.default_rng(5).integers(0, 256, (330, 420, 3), dtype=np.uint8)))
# red is the column of a pixel, green its row: so a cut shows where it was taken
COORDINATES = np.stack([*np.mgrid[:256, :256][::-1], np.zeros((256, 256), int)], axis=2).astype(np.uint8)
PLACES = picture_of(Image.fromarray(COORDINATES))
PLACES_CROP = {"left": 31.3, "top": 40.9, "width": 170.2, "height": 145.7}


def canvas_of(resolution: int, margin: int = 2) -> CanvasGeometry:
    """A canvas of 16 px patches."""
    return CanvasGeometry(resolution=resolution, patch=16, margin=margin)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_window_at_the_canvas_scale_is_the_canvas_itself(resolution: int, flip: bool) -> None:
    geometry = canvas_of(resolution)
    crop = Crop(left=17.3, top=9.6, width=301.7, height=287.1, flip=flip)
    canvas = cut_canvas(TEXTURE, crop, geometry.side).pixels().astype(int)
    for row, col in itertools.product((0, 1, 2), (0, 2)):
        window = cut_window(TEXTURE, crop, geometry, Offset(row=row, col=col), resolution).pixels()
        there = canvas[16 * row :, 16 * col :][:resolution, :resolution]
        # Pillow takes boxes in float32: they miss by 1e-5 pixels, and values at the edge of rounding fall either way
        assert np.abs(window - there).max() <= 1
        assert (window != there).mean() < 1 / 200


def seen_centre(pixels: np.ndarray) -> tuple[float, float]:
    """Column and row (pixels of the source, counted from its edge) on which a cut of `PLACES` is centred."""
    return float(pixels[:, :, 0].mean()) + 0.5, float(pixels[:, :, 1].mean()) + 0.5


def canvas_place(geometry: CanvasGeometry, flip: bool, column: float, row: float) -> tuple[float, float]:
    """Where in the source (pixels) a place of the canvas (pixels) of `PLACES_CROP` comes from."""
    across = 1 - column / geometry.side if flip else column / geometry.side
    left, top = PLACES_CROP["left"], PLACES_CROP["top"]
    return left + across * PLACES_CROP["width"], top + row / geometry.side * PLACES_CROP["height"]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("resolution", "native"), [(128, 384), (192, 384), (432, 384), (224, 192), (1152, 384)])
def test_a_window_at_another_scale_is_aligned_within_a_quarter_of_a_student_pixel(
    resolution: int, native: int, flip: bool
) -> None:
    geometry = canvas_of(resolution)
    crop = Crop(**PLACES_CROP, flip=flip)
    quarter = min(crop.width, crop.height) / geometry.side / 4
    for row, col in itertools.product((0, 1, 2), repeat=2):
        window = cut_window(PLACES, crop, geometry, Offset(row=row, col=col), native).pixels()
        assert window.shape == (native, native, 3)
        # each quadrant on its own, so that a window of the right centre and the wrong size is caught as well
        half = native // 2
        for down, along in itertools.product((0, 1), repeat=2):
            quadrant = window[down * half :, along * half :][:half, :half]
            column = 16 * col + resolution * (1 + 2 * along) / 4
            line = 16 * row + resolution * (1 + 2 * down) / 4
            expected = canvas_place(geometry, flip, column, line)
            assert np.abs(np.subtract(seen_centre(quadrant), expected)).max() < quarter


@pytest.mark.parametrize("flip", [False, True])
def test_a_canvas_shows_its_crop_and_mirrors_it(flip: bool) -> None:
    geometry = canvas_of(128)
    canvas = cut_canvas(PLACES, Crop(**PLACES_CROP, flip=flip), geometry.side).pixels()
    assert canvas.shape == (160, 160, 3)
    assert canvas.flags.c_contiguous
    for column, row in itertools.product((20, 80, 140), repeat=2):
        found = canvas[row - 1 : row + 1, column - 1 : column + 1]
        assert np.abs(np.subtract(seen_centre(found), canvas_place(geometry, flip, column, row))).max() < 0.5


def test_shrinking_averages_pixels_and_does_not_skip_them() -> None:
    stripes = np.zeros((640, 640, 3), dtype=np.uint8)
    stripes[::2] = 255
    crop = Crop(left=0, top=0, width=640, height=640, flip=False)
    canvas = cut_canvas(picture_of(Image.fromarray(stripes)), crop, 160).pixels()
    assert np.abs(canvas.astype(int) - 127.5).max() <= 12, "every fourth line alone would be all black or all white"


SIDES = st.integers(1, 3000)
RANGES = st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted).map(tuple)


@given(SIDES, SIDES, st.integers(0, 10**6), RANGES)
def test_a_crop_lies_in_its_image_and_has_an_aspect_in_the_range(
    width: int, height: int, draw: int, area: tuple[float, float]
) -> None:
    config = ViewsConfig(area=area)
    crop = draw_crop(width, height, config, (0, "image", draw))
    assert crop.left >= 0
    assert crop.top >= 0
    assert crop.left + crop.width <= width * (1 + 1e-12)
    assert crop.top + crop.height <= height * (1 + 1e-12)
    assert config.aspect[0] <= crop.width / crop.height * (1 + 1e-12)
    assert crop.width / crop.height <= config.aspect[1] * (1 + 1e-12)


@given(SIDES, SIDES, st.integers(0, 10**6))
def test_any_crop_can_be_cut(width: int, height: int, draw: int) -> None:
    image = picture_of(Image.new("RGB", (width, height), "red"))
    crop = draw_crop(width, height, ViewsConfig(), (0, "image", draw))
    geometry = canvas_of(32, margin=1)
    for offset in (Offset(row=0, col=0), Offset(row=1, col=1)):
        assert (cut_window(image, crop, geometry, offset, 24).pixels() == (255, 0, 0)).all()


def crops(config: ViewsConfig, count: int = 4000) -> list[Crop]:
    """Crops of an image in which most boxes fit."""
    return [draw_crop(800, 800, config, (0, "image", draw)) for draw in range(count)]


def test_areas_are_spread_evenly_over_their_range() -> None:
    areas = np.array([crop.width * crop.height / 800**2 for crop in crops(ViewsConfig(area=(0.2, 0.5)))])
    found = np.histogram(areas, bins=10, range=(0.2, 0.5))[0]
    assert found.sum() == 4000
    assert abs(found - 400).max() < 4 * math.sqrt(400)


def test_tall_is_as_frequent_as_wide() -> None:
    logs = np.array([math.log(crop.width / crop.height) for crop in crops(ViewsConfig(area=(0.2, 0.5)))])
    found = np.histogram(logs, bins=10, range=(-math.log(4 / 3), math.log(4 / 3)))[0]
    assert abs(found - 400).max() < 4 * math.sqrt(400)


def test_crops_lie_everywhere_in_the_image() -> None:
    lefts = np.array([crop.left / (800 - crop.width) for crop in crops(ViewsConfig(area=(0.2, 0.5)))])
    tops = np.array([crop.top / (800 - crop.height) for crop in crops(ViewsConfig(area=(0.2, 0.5)))])
    for places in (lefts, tops):
        assert abs(np.histogram(places, bins=10, range=(0, 1))[0] - 400).max() < 4 * math.sqrt(400)
    assert abs(np.corrcoef(lefts, tops)[0, 1]) < 4 / math.sqrt(4000)


def test_the_share_of_flips_is_that_of_the_recipe() -> None:
    flipped = sum(crop.flip for crop in crops(ViewsConfig(flip=0.25)))
    assert abs(flipped - 1000) < 4 * math.sqrt(4000 * 0.25 * 0.75)
    assert not any(crop.flip for crop in crops(ViewsConfig(flip=0), 100))


def test_where_no_box_fits_the_largest_one_is_taken() -> None:
    crop = draw_crop(20000, 64, ViewsConfig(), (0, "panorama", 0))
    assert (crop.width, crop.height) == pytest.approx((64 * 4 / 3, 64))
    crop = draw_crop(64, 20000, ViewsConfig(), (0, "panorama", 0))
    assert (crop.width, crop.height) == pytest.approx((64, 64 * 4 / 3))
    crop = draw_crop(110, 100, ViewsConfig(area=(1, 1), aspect=(0.5, 2)), (0, "every box is wider or taller", 0))
    assert (crop.width, crop.height) == pytest.approx((110, 100))


def test_crops_are_the_same_in_every_release() -> None:
    # another release may finish a cache: these values are part of the format
    sides = ((640, 480), (480, 640), (2000, 300), (301, 2000), (500, 500))
    crops = [draw_crop(*side, ViewsConfig(), (3, f"{draw}.jpg", draw)) for side in sides for draw in range(200)]
    text = "".join(f"{c.left:.6f} {c.top:.6f} {c.width:.6f} {c.height:.6f} {c.flip}\n" for c in crops)
    assert sha256(text.encode()).hexdigest() == "e5431111e2d93d246b4c4f18137eea1d13f4869842ef423607044411a3c9e893"


@pytest.mark.parametrize(("width", "height"), [(301, 200), (200, 301), (128, 128)])
def test_a_centred_crop_is_the_largest_square_in_the_middle(width: int, height: int) -> None:
    crop = draw_crop(width, height, ViewsConfig(crop="centre"), (0, "image", 0))
    side = min(width, height)
    assert (crop.width, crop.height) == (side, side)
    assert (crop.left, crop.top) == ((width - side) / 2, (height - side) / 2)


def test_a_centred_crop_is_mirrored_as_the_recipe_says() -> None:
    random, centre = ([crop.flip for crop in crops(ViewsConfig(crop=kind), 200)] for kind in ("random", "centre"))
    assert random == centre
    assert not any(crop.flip for crop in crops(ViewsConfig(crop="centre", flip=0), 100))


def test_this_crop_is_the_same_in_every_release() -> None:
    crop = draw_crop(300, 900, ViewsConfig(), (0, "ünï.webp", 2))
    found = (crop.left, crop.top, crop.width, crop.height)
    assert found == pytest.approx(
        (10.410085241618077, 100.24511697137005, 281.6900009445646, 306.9269547892858), rel=1e-12
    )
    assert crop.flip
