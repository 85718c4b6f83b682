"""Evaluation views: every image at every resolution, nothing at random. No image is read here.

The short side of an image is scaled to the resolution, and the aspect is kept. So one square of an image is one view:

- `centre`: the square in the middle;
- `windows`: squares side by side along the long side, from its start. A square that would reach beyond the end is moved
  back until it ends there, so the last squares may overlap.
"""

from pipeline.config import ViewsConfig
from storage_schemas.format.views import ViewSet


def evaluation_sets(config: ViewsConfig) -> list[ViewSet]:
    """Return the view sets that every image has views in: all of the settings, in order of name."""
    low = [ViewSet(partition="low", resolution=resolution) for resolution in config.low]
    high = [ViewSet(partition="high", resolution=resolution) for resolution in config.high]
    return sorted([*low, *high])


def evaluation_square(
    image_width: int, image_height: int, config: ViewsConfig, draw: int
) -> tuple[float, float, float, float]:
    """Return the square of an image that a view shows: left, top, width, height (pixels of the source).

    Let s be the short side and l the long one. The square has side s. Along the long side it starts at (l − s) / 2
    (`centre`), or at min(draw × s, l − s) (`windows`); along the short side at 0.

    Args:
        image_width: width of the upright source (pixels).
        image_height: height of the upright source (pixels).
        config: the placing.
        draw: number of the view among those of its image.
    """
    side = float(min(image_width, image_height))
    room = max(image_width, image_height) - side
    start = room / 2 if config.placing == "centre" else min(draw * side, room)
    return (start, 0.0, side, side) if image_width >= image_height else (0.0, start, side, side)
