"""Pictures as data URIs, so that a page needs nothing beside it."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

ERROR_COLOUR = (214, 40, 76)
"""RGB of the largest error; smaller ones let the page shine through, be it light or dark."""
ERROR_FULL = 2.0
"""Squared error (PHI-S units squared, a mean over channels) drawn in full colour: twice that of the teacher's mean."""


def picture(image: UInt8[np.ndarray, "rows cols 3"], largest: int | None = None) -> str:
    """Return an RGB image as the data URI of a PNG.

    Args:
        image: the image.
        largest: longest side that is kept (pixels); None keeps every pixel.
    """
    whole = Image.fromarray(image)
    if largest is not None and max(whole.size) > largest:
        whole.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return _data_uri(whole)


def error_picture(error: Float[np.ndarray, "rows cols"]) -> str:
    """Return squared errors as the data URI of a PNG: one colour, the more opaque the larger the error.

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
