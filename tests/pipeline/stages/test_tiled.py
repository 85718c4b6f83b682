"""A fixed teacher in the high partition: tiled, interpolated, and by an upsampler of the user's own."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from quarter_oracle import differs_by_more_than_rounding, phi_s_of
from stage_runs import LOCAL, StageRun, own, run_stages, write_colours

from pipeline.config import CalibrationConfig, Recipe, ViewsConfig
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.images.listing import list_images
from pipeline.inventory.units import total_bytes
from pipeline.plan.forecast import drawn_views
from pipeline.plan.plan import plan_run
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError
from storage_schemas.format.phi_s import to_raw
from storage_schemas.objects.store import Store
from teachers.quarter_mean import quarter_means

FIXED = "teachers.quarter_mean:QuarterMeanFixed"
BLEND = "odd_teachers:Blend"


@pytest.fixture(scope="module")
def tiled_run(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """One teacher, 192 px alone, through every way of making 24 × 24 tokens of a large window."""
    recipe = Recipe(
        name="tiled",
        views=ViewsConfig(seed=4, low=(192,), high=(256, 384), high_share=0.6, tokens_per_shard=2304, canvas_tokens=0),
        teachers=(
            own(FIXED, name="tiled", tiles=2, batch=3),
            own(FIXED, name="whole", tiles=2, upsampler="bilinear"),
            own(FIXED, name="blended", tiles=2, upsampler=BLEND),
        ),
        calibration=CalibrationConfig(views=20, tokens_per_channel=5),
    )
    root = tmp_path_factory.mktemp("tiled")
    return run_stages(recipe, write_colours(root / "images", 24), root / "cache")


def said_of(details: np.ndarray) -> np.ndarray:
    """What the teacher says of details, whatever their side."""
    return quarter_means(torch.from_numpy(details).float().permute(0, 3, 1, 2) / 255, 16).numpy()


@pytest.mark.parametrize("view_set", ["low-192", "high-256", "high-384"])
def test_tiles_hold_what_the_teacher_says_of_each_part_of_the_window(tiled_run: StageRun, view_set: str) -> None:
    tokens = 12 if view_set == "low-192" else 24
    assert tiled_run.arrays[f"teachers/tiled/{view_set}/spatial"].shape[1:] == (tokens, tokens, 12)
    assert len(tiled_run.table("placements", f"tiled/{view_set}")) > 3
    assert differs_by_more_than_rounding(tiled_run, "tiled", view_set) == 0


@pytest.mark.parametrize("view_set", ["high-256", "high-384"])
def test_a_blend_has_its_share_of_the_whole_and_of_the_tiles(tiled_run: StageRun, view_set: str) -> None:
    tiles = said_of(tiled_run.arrays[f"views/{view_set}/detail/blended"][...])
    stored = to_raw(phi_s_of(tiled_run, "blended"), tiled_run.arrays[f"teachers/blended/{view_set}/spatial"][...])
    whole = (stored - 0.5 * tiles) / 0.5
    # one token of the whole lies under 2 × 2 of the tiles, whose mean colour it shares
    assert np.abs(whole - whole[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)).max() < 0.005
    colour = [one.reshape(len(one), 12, 2, 12, 2, 4, 3).mean(axis=(2, 4, 5)) for one in (whole, tiles)]
    assert np.abs(colour[0] - colour[1]).max() < 0.05


def test_an_interpolated_window_is_cut_natively_and_has_no_more_detail_than_that(tiled_run: StageRun) -> None:
    details = tiled_run.arrays["views/high-256/detail/whole"][...]
    assert details.shape[1:] == (192, 192, 3)
    native = torch.from_numpy(said_of(details)).permute(0, 3, 1, 2)
    finer = torch.nn.functional.interpolate(native, size=(24, 24), mode="bilinear").permute(0, 2, 3, 1)
    stored = to_raw(phi_s_of(tiled_run, "whole"), tiled_run.arrays["teachers/whole/high-256/spatial"][...])
    np.testing.assert_allclose(stored, finer, atol=0.002)


def test_summaries_are_of_the_whole_window(tiled_run: StageRun) -> None:
    summaries = [tiled_run.arrays[f"teachers/{name}/high-384/summary"][...] for name in ("tiled", "blended")]
    details = tiled_run.arrays["views/high-384/detail/tiled"][...]
    # a mean over all patches hardly knows at which scale they were seen
    colour = (details.astype(np.float64) / 255).mean(axis=(1, 2))
    np.testing.assert_allclose(summaries[0].reshape(-1, 4, 3).mean(axis=1), colour, atol=0.005)
    assert np.abs(summaries[0].reshape(-1, 4, 3)[:, 0] - colour).max() > 0.001


def test_the_plan_counts_tiles_and_the_whole_and_every_byte(tiled_run: StageRun) -> None:
    views = drawn_views(list_images(str(tiled_run.data)), tiled_run.recipe.views)
    plan = plan_run(tiled_run.recipe, views)
    rows = {view_set.name: shape.grid.rows for view_set, shape in views.shapes.items()}
    high = rows["high-256"] + rows["high-384"]
    assert [one.forwards for one in plan.teachers] == [rows["low-192"] + each * high for each in (5, 1, 5)]
    said = [line.split(" views in ")[1].split(" forwards")[0] for line in tiled_run.said if " forwards" in line]
    assert said == [str(one.forwards) for one in plan.teachers]
    for one in plan.teachers:
        for unit in (*one.features["float16"], *one.details):
            files = [tiled_run.where / "features.zarr" / spec.path / "c" for spec in unit.arrays]
            stored = sum(path.stat().st_size for folder in files for path in folder.rglob("*") if path.is_file())
            assert stored == total_bytes([unit])


def test_verify_finds_it_sound_and_runs_it_again(tiled_run: StageRun) -> None:
    tiled = verify_cache(tiled_run.cache, VerifyOptions(cache=str(tiled_run.where)))
    assert (tiled.problems, tiled.unfinished, tiled.leftovers) == ((), (), {})
    for choice in tiled_run.recipe.teachers:
        options = VerifyOptions(cache=str(tiled_run.where), teacher=choice.name, source=choice.source, recompute=100)
        verdict = verify_cache(tiled_run.cache, options)
        assert verdict.problems == ()
        assert verdict.recomputed[0].views == 24


@pytest.mark.parametrize("change", [{"tiles": 3}, {"upsampler": "bilinear"}, {"upsampler": "tiles"}, {"tiles": 1}])
def test_other_tiles_under_the_same_name_are_refused(tiled_run: StageRun, tmp_path: Path, change: dict) -> None:
    shutil.copytree(tiled_run.where, tmp_path / "cache")
    cache = Cache(store=Store(uri=str(tmp_path / "cache")))
    choice = replace(tiled_run.recipe.teacher("whole" if change == {"tiles": 1} else "blended"), **change)
    with pytest.raises(IdentityError, match=f"(?s)^teacher {choice.name} .*give this teacher another name"):
        extract_teacher(plan_extraction(cache, tiled_run.recipe, choice), LOCAL, str)


def test_another_trained_upsampler_under_the_same_name_is_refused(
    tiled_run: StageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    import odd_teachers

    monkeypatch.setattr(odd_teachers.Blend, "weights_sha256", "6" * 64)
    with pytest.raises(IdentityError, match="weights_sha256"):
        extract_teacher(
            plan_extraction(tiled_run.cache, tiled_run.recipe, tiled_run.recipe.teacher("blended")), LOCAL, str
        )
