"""Running a fixed teacher over windows: whole, at its native size, and for a tiled teacher tile by tile as well.

Shapes: n views, u tiles along a side, t tokens of a native input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.features.failures import errors_of
from pipeline.features.teacher import RunningTeacher
from teachers.output import TeacherOutput
from teachers.upsamplers import SeenWindows, upsampled


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewFeatures:
    """A teacher's features of consecutive views, in raw units, on the teacher's device."""

    maps: Mapping[int | None, Float[Tensor, "views rows cols channels"]]
    """Feature maps by block; None stands for the last block."""
    summary: Float[Tensor, "views summary"] | None


def features_of(output: TeacherOutput) -> ViewFeatures:
    """Return a teacher's output as features of views, where every input is one view."""
    maps: dict[int | None, Tensor] = {None: output.spatial}
    maps |= dict(output.layers.items())
    return ViewFeatures(maps=maps, summary=output.summary)


def fixed_features(running: RunningTeacher, windows: Float[Tensor, "views 3 side side"], tiles: int) -> ViewFeatures:
    """Run a fixed teacher over windows.

    The summary is that of the whole window at native size. So is the map, of t tokens along a side, unless there are
    tiles: then the upsampler makes a map of u · t tokens from it and from the maps of the tiles.
    Source: v4 section 2.2 and v2.5 section 4.2 (a CLIP teacher's native size).

    Args:
        running: the teacher, and its upsampler.
        windows: normalised; their side is u times the native side where the upsampler uses tiles, else the native side.
        tiles: u.
    """
    native = running.spec.native
    whole = _encoded(running, windows if windows.shape[-1] == native else shrunk(windows, native))
    if tiles == 1 or running.upsampler is None:
        return whole
    seen = {} if windows.shape[-1] == native else _encoded(running, cut_tiles(windows, tiles)).maps
    tiled = {layer: stitch_tiles(spatial, tiles) for layer, spatial in seen.items()}
    with errors_of(f"upsampler {running.spec.upsampler}"):
        maps = {
            layer: upsampled(
                running.upsampler,
                SeenWindows(
                    images=windows,
                    whole=spatial,
                    tiled=tiled.get(layer),
                    tiles=tiles,
                    mean=running.spec.mean,
                    std=running.spec.std,
                ),
            )
            for layer, spatial in whole.maps.items()
        }
    return ViewFeatures(maps=maps, summary=whole.summary)


def shrunk(windows: Float[Tensor, "views 3 side side"], side: int) -> Float[Tensor, "views 3 small small"]:
    """Shrink windows to a side in pixels, bicubic and antialiased.

    Views are cut with the same filter by Pillow, which rounds to whole levels and clips to 0 … 255 after each axis.
    Here nothing is clipped, because windows are normalised; caches hold what comes of it. The difference is up to 9
    levels at the edges of photographs, and 23 in a checkerboard. Where Pillow clips nothing, it is below 1.
    """
    return interpolate(windows, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


def cut_tiles(windows: Float[Tensor, "views 3 side side"], tiles: int) -> Float[Tensor, "tiles 3 native native"]:
    """Cut each window into u × u tiles, row by row."""
    views, channels, side, _ = windows.shape
    native = side // tiles
    cut = windows.reshape(views, channels, tiles, native, tiles, native).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(views * tiles**2, channels, native, native)


def stitch_tiles(
    spatial: Float[Tensor, "tiles tokens tokens channels"], tiles: int
) -> Float[Tensor, "views fine fine channels"]:
    """Join the tokens of u × u tiles to one map for each window."""
    count, tokens, _, channels = spatial.shape
    views = count // tiles**2
    joined = spatial.reshape(views, tiles, tiles, tokens, tokens, channels).permute(0, 1, 3, 2, 4, 5)
    return joined.reshape(views, tiles * tokens, tiles * tokens, channels)


def _encoded(running: RunningTeacher, inputs: Float[Tensor, "inputs 3 native native"]) -> ViewFeatures:
    parts = [features_of(running.encode(batch)) for batch in inputs.split(running.batch)]
    summaries = [part.summary for part in parts if part.summary is not None]
    return ViewFeatures(
        maps={layer: torch.cat([part.maps[layer] for part in parts]) for layer in parts[0].maps},
        summary=torch.cat(summaries) if summaries else None,
    )
