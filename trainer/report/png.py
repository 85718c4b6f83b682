"""Images as data URIs, so that the page needs no other file."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

ERROR_COLOUR = (214, 40, 76)
"""RGB of the largest error. Smaller errors are more transparent, on a light or a dark page."""
ERROR_FULL = 2.0
"""Squared error (PHI-S units squared, a mean over channels) that is opaque: twice that of predicting the teacher's
mean."""


def picture(image: UInt8[np.ndarray, "rows cols 3"], largest: int | None = None) -> str:
    """Return an RGB image as the data URI of a PNG.

    Args:
        image: the image.
        largest: longest side (pixels) to which a larger image is shrunk; None keeps the size.
    """
    whole = Image.fromarray(image)
    if largest is not None and max(whole.size) > largest:
        whole.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return _data_uri(whole)


def error_picture(error: Float[np.ndarray, "rows cols"]) -> str:
    """Return squared errors as the data URI of a PNG in one colour. A larger error is more opaque.

    Args:
        error: squared error of each token, a mean over channels (PHI-S units squared).
    """
    image = np.empty((*error.shape, 4), dtype=np.uint8)
    image[..., :3] = ERROR_COLOUR
    image[..., 3] = np.round(255 * np.clip(error / ERROR_FULL, 0, 1))
    return _data_uri(Image.fromarray(image))


def _data_uri(image: Image.Image) -> str:
    body = io.BytesIO()
    image.save(body, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(body.getvalue()).decode()}"
