"""What a quarter-mean teacher must have said, worked out by numpy from what is stored of the views."""

import itertools
from collections.abc import Callable

import numpy as np
from PIL import Image
from stage_runs import StageRun

from storage_schemas.format.geometry import CanvasGeometry, Offset, TokenAxis, match_axis, match_tokens
from storage_schemas.format.phi_s import PhiS, to_raw, to_stored

STUDENT_OFFSETS = [Offset(row=row, col=col) for row, col in itertools.product((0, 1, 2), repeat=2)]


def geometry_of(view_set: str) -> CanvasGeometry:
    """The canvas of a set."""
    return CanvasGeometry(resolution=int(view_set.split("-")[1]), patch=16, margin=2)


def quarters(pixels: np.ndarray, patch: int) -> np.ndarray:
    """Mean colour of each quarter of each patch: top left, top right, bottom left, bottom right, of [0, 1]."""
    tokens, half = len(pixels) // patch, patch // 2
    blocks = pixels.astype(np.float64).reshape(tokens, 2, half, tokens, 2, half, 3) / 255
    return blocks.mean(axis=(2, 5)).transpose(0, 2, 1, 3, 4).reshape(tokens, tokens, 12)


def window_of(canvas: np.ndarray, offset: Offset, resolution: int) -> np.ndarray:
    """The window at an offset in patches of 16 pixels."""
    return canvas[16 * offset.row :, 16 * offset.col :][:resolution, :resolution]


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pixels at another side, by Pillow in floating point."""
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(pixels, 2, 0)]
    small = [np.asarray(channel.resize((side, side), Image.Resampling.BILINEAR)) for channel in channels]
    return np.stack(small, axis=2)


def offset_in(placement: dict) -> Offset:
    """A placement's offset."""
    return Offset(row=placement["offset_row"], col=placement["offset_col"])


def expected_raw(run: StageRun, teacher: str, view_set: str, placement: dict) -> np.ndarray:
    """What the teacher must have said of a view, from what is stored of the view."""
    spec, views, row = run.spec(teacher), run.arrays[f"views/{view_set}"], placement["row"]
    if spec.size_rule == "fixed":
        return quarters(views[f"detail/{teacher}"][row], spec.patch)
    resolution = geometry_of(view_set).resolution
    window = window_of(views["pixels"][row], offset_in(placement), resolution)
    if spec.size_rule == "canvas" and spec.patch != 16:
        window = resized(window, resolution // 16 * spec.patch)
    return quarters(window, spec.patch)


def phi_s_of(run: StageRun, teacher: str) -> PhiS:
    """The teacher's map, as plain zarr-python reads it."""
    group = run.arrays[f"teachers/{teacher}/phi_s"]
    return PhiS(mean=group["mean"][...], rotation=group["rotation"][...], scale=float(group["scale"][...]))


def differs_by_more_than_rounding(run: StageRun, teacher: str, view_set: str) -> int:
    """Count the views whose stored features, brought back, are not what the teacher must have said.

    A rotation keeps lengths: float16 rounds each value by 2⁻¹¹ of it, and so a token by 2⁻¹¹ of its length at most.
    """
    phi_s, stored = phi_s_of(run, teacher), run.arrays[f"teachers/{teacher}/{view_set}/spatial"]
    wrong = 0
    for placement in run.table("placements", f"{teacher}/{view_set}"):
        tokens = stored[placement["row"]]
        off = np.linalg.norm(to_raw(phi_s, tokens) - expected_raw(run, teacher, view_set, placement), axis=-1)
        rounding = phi_s.scale * 2.0**-11 * np.linalg.norm(tokens.astype(np.float64), axis=-1)
        wrong += not (off <= rounding + 1e-5).all()
    return wrong


def spatial_losses(
    run: StageRun, teacher: str, view_set: str, distort: Callable[[dict, int], tuple[Offset, int]]
) -> np.ndarray:
    """Spatial loss (PHI-S units) of the same function as a student, for every view and every offset of the student.

    Args:
        run: the run.
        teacher: whose features.
        view_set: of which set.
        distort: placement, number of rows → the offset and the row that the features are taken for.
    """
    phi_s, geometry = phi_s_of(run, teacher), geometry_of(view_set)
    stored, pixels = run.arrays[f"teachers/{teacher}/{view_set}/spatial"][...], run.arrays[f"views/{view_set}/pixels"]
    losses = []
    for placement in run.table("placements", f"{teacher}/{view_set}"):
        canvas = pixels[placement["row"]]
        seen_at, row = distort(placement, len(stored))
        for offset in STUDENT_OFFSETS:
            student = to_stored(phi_s, quarters(window_of(canvas, offset, geometry.resolution), 16))
            rows, cols = (
                match_axis(
                    TokenAxis(start=mine, span=geometry.span, tokens=geometry.span),
                    TokenAxis(start=its, span=geometry.span, tokens=stored.shape[1]),
                )
                for mine, its in ((offset.row, seen_at.row), (offset.col, seen_at.col))
            )
            mapped, beside, common = match_tokens(student, stored[row], rows, cols)
            assert common.any()
            losses.append(np.square(mapped - beside)[common].mean())
    return np.array(losses)
