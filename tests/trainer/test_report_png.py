"""Pictures as data URIs."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from trainer.report.png import ERROR_COLOUR, error_picture, picture


def opened(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body, validate=True)), formats=["PNG"]))


def test_a_picture_keeps_every_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(5, 5, 3), dtype=np.uint8)
    assert np.array_equal(opened(picture(image)), image)
    assert np.array_equal(opened(picture(image, largest=5)), image)


def test_a_large_picture_is_shrunk_to_its_longest_side() -> None:
    image = np.full((60, 90, 3), 77, dtype=np.uint8)
    shrunk = opened(picture(image, largest=30))
    assert shrunk.shape == (20, 30, 3)
    assert (shrunk == 77).all()


@pytest.mark.parametrize(("error", "opacity"), [(0.0, 0), (0.5, 64), (1.0, 128), (2.0, 255), (50.0, 255)])
def test_an_error_is_the_more_opaque_the_larger_it_is(error: float, opacity: int) -> None:
    image = opened(error_picture(np.array([[error]])))
    assert image.tolist() == [[[*ERROR_COLOUR, opacity]]]
