"""The three real families, tiny: what is stored is standardised, and is what each model says of the stored pixels."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from stage_runs import StageRun
from torch.nn.functional import interpolate

from storage_schemas.format.phi_s import PhiS, to_raw
from teachers.base import AbstractTeacher, TeacherOutput
from teachers.build import build_teacher

TEACHERS = ("dinov3", "siglip2", "sam3")
MAPS = (*TEACHERS, "dinov3-block0", "siglip2-block0", "sam3-block0")
SETS = ("high-256", "low-128", "low-192")
WINDOWS_A_SIDE = {"low-128": 3, "low-192": 2, "high-256": 1}  # of sam3-tiny's 24 tokens


def spatial_of(run: StageRun, teacher: str, view_set: str) -> np.ndarray:
    """All stored tokens of a set, in float64."""
    return run.arrays[f"teachers/{teacher}/{view_set}/spatial"][...].astype(np.float64)


def rows_of(run: StageRun, teacher: str) -> np.ndarray:
    """All stored tokens of a teacher, one a row."""
    return np.concatenate([spatial_of(run, teacher, name).reshape(-1, run.spec(teacher).dim) for name in SETS])


@pytest.mark.parametrize("teacher", MAPS)
def test_stored_features_have_mean_zero_and_variance_one_in_every_channel_nearly(
    tiny_run: StageRun, teacher: str
) -> None:
    rows = rows_of(tiny_run, teacher)
    assert np.abs(rows.mean(axis=0)).max() < 0.1
    assert abs(rows.var(axis=0).mean() - 1) < 0.05
    assert np.abs(rows.var(axis=0) - 1).max() < 0.25, "and not on average alone"


def normalised(pixels: np.ndarray, teacher: AbstractTeacher) -> torch.Tensor:
    """Pixels as a model wants them."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (teacher.spec.mean, teacher.spec.std))
    return torch.from_numpy(((np.moveaxis(pixels, -1, -3) / 255 - mean) / std).astype(np.float32))


def windows_of(run: StageRun, view_set: str, placements: list[dict]) -> np.ndarray:
    """What the placements say was seen of the canvases."""
    resolution, canvases = int(view_set.split("-")[1]), run.arrays[f"views/{view_set}/pixels"]
    corners = [(16 * one["offset_row"], 16 * one["offset_col"]) for one in placements]
    return np.stack(
        [
            canvases[one["row"]][top : top + resolution, left : left + resolution]
            for one, (top, left) in zip(placements, corners, strict=True)
        ]
    )


def map_of(output: TeacherOutput) -> torch.Tensor:
    """The one map of a block that was asked for; else that of the last."""
    return next(iter(output.layers.values()), output.spatial)


def mosaics_said(run: StageRun, teacher: AbstractTeacher, view_set: str, placements: list[dict]) -> np.ndarray:
    """What a canvas teacher says, composed anew from the placements: each mosaic by its number, each cell by its."""
    tokens, across = int(view_set.split("-")[1]) // 16, WINDOWS_A_SIDE[view_set]
    side, cell = 14 * tokens, 24 // across
    pixels = normalised(windows_of(run, view_set, placements), teacher)
    windows = interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    said = np.empty((len(placements), tokens, tokens, teacher.spec.dim), np.float32)
    for mosaic in {one["mosaic"] for one in placements}:
        members = [index for index, one in enumerate(placements) if one["mosaic"] == mosaic]
        corners = {index: np.array(divmod(placements[index]["cell"], across)) * cell for index in members}
        canvas = torch.zeros(1, 3, 336, 336)
        for index, (row, col) in corners.items():
            canvas[0, :, 14 * row : 14 * row + side, 14 * col : 14 * col + side] = windows[index]
        spatial = map_of(teacher.encode(canvas))[0].numpy()
        for index, (row, col) in corners.items():
            said[index] = spatial[row : row + tokens, col : col + tokens]
    return said


def tiles_said(details: np.ndarray, teacher: AbstractTeacher, block: str) -> tuple[np.ndarray, np.ndarray | None]:
    """What a fixed teacher says of 2 × 2 tiles, one at a time, and its summary of the whole, shrunk by Pillow."""
    said = np.empty((len(details), 24, 24, teacher.spec.dim), np.float32)
    for down, right in itertools.product((0, 1), repeat=2):
        tile = details[:, 192 * down :, 192 * right :][:, :192, :192]
        tokens = map_of(teacher.encode(normalised(tile, teacher))).numpy()
        said[:, 12 * down : 12 * down + 12, 12 * right : 12 * right + 12] = tokens
    whole = np.stack([Image.fromarray(one).resize((192, 192), Image.Resampling.BICUBIC) for one in details])
    return said, None if block else teacher.encode(normalised(whole, teacher)).summary.numpy()


def all_said(run: StageRun, name: str, view_set: str, placements: list[dict]) -> tuple[np.ndarray, np.ndarray | None]:
    """What the model says of the stored pixels, from the tables alone: spatial and summary."""
    whole, _, block = name.partition("-block")
    choice, layers = run.recipe.teacher(whole), (int(block),) if block else ()
    teacher = build_teacher(choice.source, weights=choice.weights, precision="fp32", layers=layers)
    if whole == "sam3":
        return mosaics_said(run, teacher, view_set, placements), None
    pixels = windows_of(run, view_set, placements)
    if whole == "siglip2":
        pixels = run.arrays[f"views/{view_set}/detail/siglip2"][...]
    if pixels.shape[1] == 384:
        return tiles_said(pixels, teacher, block)
    output = teacher.encode(normalised(pixels, teacher))
    return map_of(output).numpy(), None if block else output.summary.numpy()


@pytest.mark.parametrize("view_set", SETS)
@pytest.mark.parametrize("teacher", MAPS)
def test_what_a_model_says_of_the_stored_pixels_is_what_is_stored(
    tiny_run: StageRun, teacher: str, view_set: str
) -> None:
    group = tiny_run.arrays[f"teachers/{teacher}/phi_s"]
    phi_s = PhiS(mean=group["mean"][...], rotation=group["rotation"][...], scale=float(group["scale"][...]))
    placements = tiny_run.table("placements", f"{teacher}/{view_set}")
    spatial, summary = all_said(tiny_run, teacher, view_set, placements)
    stored = spatial_of(tiny_run, teacher, view_set)
    assert len(stored) == len(placements) > 9
    off = np.linalg.norm(to_raw(phi_s, stored) - spatial, axis=-1)
    # float16's own rounding, and that of float32 products in batches of another size
    rounding = phi_s.scale * 2.0**-11 * np.linalg.norm(stored, axis=-1) + 1e-5 * np.linalg.norm(spatial, axis=-1)
    assert (off <= rounding).all()
    if summary is None:
        assert "summary" not in tiny_run.arrays[f"teachers/{teacher}/{view_set}"]
    else:
        summaries = tiny_run.arrays[f"teachers/{teacher}/{view_set}/summary"][...]
        # Pillow rounds what it shrinks to whole steps of 256, we do not
        tiled = teacher == "siglip2" and view_set == "high-256"
        np.testing.assert_allclose(summaries, summary, atol=0.02 * np.abs(summary).max() if tiled else 1e-5)


@pytest.mark.parametrize("teacher", MAPS)
def test_stats_are_the_moments_of_all_that_is_stored(tiny_run: StageRun, teacher: str) -> None:
    stats = tiny_run.cache.stats(teacher)
    assert stats is not None
    measured = {view_set.name: channels for view_set, channels in stats.sets.items()} | {"all": stats.pooled}
    dim = tiny_run.spec(teacher).dim
    stored = {name: spatial_of(tiny_run, teacher, name).reshape(-1, dim) for name in SETS}
    for name, rows in (stored | {"all": rows_of(tiny_run, teacher)}).items():
        assert measured[name].tokens == len(rows)
        np.testing.assert_allclose(measured[name].mean, rows.mean(axis=0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(measured[name].variance, rows.var(axis=0, ddof=1), rtol=1e-9)
    assert stats.views == 60


@pytest.mark.parametrize("teacher", ["dinov3", "siglip2"])
def test_dispersion_is_the_mean_squared_angle_to_the_mean_of_the_others(tiny_run: StageRun, teacher: str) -> None:
    rows = {name: [view["row"] for view in tiny_run.table("views", name) if view["split"] == "train"] for name in SETS}
    stored = [tiny_run.arrays[f"teachers/{teacher}/{name}/summary"][...][rows[name]] for name in SETS]
    summaries = np.concatenate(stored).astype(np.float64)
    centre = summaries.sum(axis=0)
    others = centre - summaries
    lengths = np.linalg.norm(summaries, axis=1) * np.linalg.norm(others, axis=1)
    angles = np.arccos((summaries * others).sum(axis=1) / lengths)
    stats = tiny_run.cache.stats(teacher)
    assert stats is not None
    np.testing.assert_allclose(stats.dispersion, np.mean(np.square(angles)), rtol=1e-6)
    np.testing.assert_allclose(stats.mean_direction, centre / np.linalg.norm(centre), atol=1e-12)


def test_a_teacher_without_summaries_has_no_dispersion(tiny_run: StageRun) -> None:
    stats = tiny_run.cache.stats("sam3")
    assert stats is not None
    assert (stats.dispersion, stats.mean_direction) == (None, None)


def test_random_weights_are_said_and_recorded(tiny_run: StageRun) -> None:
    said = "extract sam3: RANDOM WEIGHTS (random:3): a demonstration, not a teacher"
    assert said in tiny_run.said
    for teacher in TEACHERS:
        manifest = tiny_run.cache.teacher_manifest(teacher)
        assert manifest is not None
        assert manifest.spec.random_weights
