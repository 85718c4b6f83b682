"""The geometry of dense tasks: which pixels of an image a view covers, and maps that are read between grid cells."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

BAND = 2**24
"""Values of an enlarged map that are held at once."""

Box = Float64[np.ndarray, "4"]
"""Left, top, width and height of a view (pixels of the upright image)."""


def covered(start: float, length: float, size: int) -> range:
    """Return the pixels along one side of an image whose centres lie in a view.

    Args:
        start: first edge of the view (pixels).
        length: length of the view (pixels).
        size: length of the image (pixels).
    """
    first, stop = (int(np.ceil(edge - 0.5)) for edge in (start, start + length))
    return range(min(max(first, 0), size), min(max(stop, 0), size))


def bilinear_weights(places: Float64[np.ndarray, " places"], cells: int) -> Float64[np.ndarray, "places cells"]:
    """Return the weight of every cell of a row at some places between them.

    The value of a cell lies at its centre, i + ½. Before the first centre and after the last one it stays the same, as
    in `torch.nn.functional.interpolate` with `align_corners=False`.

    Args:
        places: in cells, from the outer edge of the first one.
        cells: number of cells.

    Returns:
        Weights; those of a place sum to 1.
    """
    inner = np.clip(places - 0.5, 0, cells - 1)
    low = np.minimum(inner.astype(np.int64), max(cells - 2, 0))
    weights, rows = np.zeros((len(places), cells)), np.arange(len(places))
    weights[rows, low] = 1 - (inner - low)
    weights[rows, np.minimum(low + 1, cells - 1)] += inner - low
    return weights


def enlarge(
    grid: Float[Tensor, "rows cols channels"], box: Box, ys: range, xs: range
) -> Float[Tensor, "height width channels"]:
    """Return a view's map at the centres of some pixels of its image, interpolated bilinearly.

    Args:
        grid: values of the view's cells.
        box: the view.
        ys: rows of pixels.
        xs: columns of pixels.
    """
    left, top, width, height = box
    rows, cols = grid.shape[:2]
    down = torch.from_numpy(bilinear_weights((np.array(ys) + 0.5 - top) / height * rows, rows)).to(grid)
    across = torch.from_numpy(bilinear_weights((np.array(xs) + 0.5 - left) / width * cols, cols)).to(grid)
    # one axis after the other, by matrix products: many times faster than gathering four neighbours per pixel
    return torch.einsum("xc,ycd->yxd", across, torch.einsum("yr,rcd->ycd", down, grid))


def put_together(
    grids: Sequence[Float[Tensor, "_ _ channels"]], boxes: Sequence[Box], size: tuple[int, int]
) -> Iterator[tuple[range, Float[Tensor, "height width channels"], Int64[np.ndarray, "height width"]]]:
    """Put the maps of an image's views together on its pixels. Where several views cover a pixel, their mean counts.

    Args:
        grids: the map of each view.
        boxes: each view.
        size: height and width of the image (pixels).

    Yields:
        Some rows of pixels, their values, and how many views cover each pixel; values are 0 where none does.
    """
    height, width = size
    channels = grids[0].shape[2]
    step = max(1, BAND // (width * channels))
    for first in range(0, height, step):
        band = range(first, min(first + step, height))
        total = grids[0].new_zeros(len(band), width, channels)
        count = np.zeros((len(band), width), np.int64)
        for grid, box in zip(grids, boxes, strict=True):
            ys, xs = covered(box[1], box[3], height), covered(box[0], box[2], width)
            ys = range(max(ys.start, band.start), min(ys.stop, band.stop))
            if len(ys) and len(xs):
                here = slice(ys.start - first, ys.stop - first), slice(xs.start, xs.stop)
                total[here] += enlarge(grid, box, ys, xs)
                count[here] += 1
        yield band, total / torch.from_numpy(np.maximum(count, 1)).to(total)[..., None], count


def cut(image_map: np.ndarray, box: Box, side: int) -> np.ndarray:
    """Cut a view out of a map of its image, by nearest neighbour.

    Args:
        image_map: `[height, width, …]`, on the pixels of the image.
        box: the view.
        side: pixels along a side of the view.

    Returns:
        `[side, side, …]`: the value of the pixel in which each pixel of the view has its centre.
    """
    centres = (np.arange(side) + 0.5) / side
    ys = np.clip(np.floor(box[1] + centres * box[3]), 0, image_map.shape[0] - 1).astype(np.int64)
    xs = np.clip(np.floor(box[0] + centres * box[2]), 0, image_map.shape[1] - 1).astype(np.int64)
    return image_map[np.ix_(ys, xs)]
