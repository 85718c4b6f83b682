"""What stages report of themselves is what they did, and the cache is the same with a report and without."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from stage_runs import LOCAL, contents, own, run_stages, write_colours

from pipeline.config import CalibrationConfig, Recipe, ViewsConfig
from pipeline.recipes.demo import demo
from teachers.cost import tflop_per_input


def test_figures_of_every_stage_are_those_of_what_is_stored(tmp_path: Path) -> None:
    dinov3 = replace(demo().teacher("dinov3"), batch=4)
    recipe = Recipe(
        name="figures",
        views=ViewsConfig(low=(128,), high=(), heldout=0.2, tokens_per_shard=600, canvas_tokens=24),
        teachers=(dinov3, own("teachers.quarter_mean:QuarterMean")),
        calibration=CalibrationConfig(tokens_per_channel=5),
    )
    data, where = write_colours(tmp_path / "images", 20), tmp_path / "run.json"
    told = run_stages(recipe, data, tmp_path / "told", replace(LOCAL, report=str(where)))
    assert contents(told.where) == contents(run_stages(recipe, data, tmp_path / "untold").where)
    stages = json.loads(where.read_text())["stages"]
    assert list(stages) == ["views", "extract dinov3", "extract quarter-mean", "stats dinov3", "stats quarter-mean"]
    for figures in stages.values():
        assert figures["state"] == "done"
        assert (figures["views"], figures["views_done"], figures["views_total"]) == (20, 20, 20)
    extracted, measured = stages["extract dinov3"], stages["stats dinov3"]
    assert (extracted["tokens"], measured["tokens"]) == (20 * 64, 20 * 64)
    assert extracted["tflop"] == pytest.approx(20 * tflop_per_input(dinov3.source, 128))
    assert extracted["share_of_peak"] is None
    assert stages["extract quarter-mean"]["tflop"] is None
    shards = [path for path in (told.where / "features.zarr").rglob("dinov3/low-128/*/c/**/*") if path.is_file()]
    assert len(shards) == 2 * 3, "spatial and summary"
    assert extracted["mb_written"] == pytest.approx(sum(path.stat().st_size for path in shards) / 1e6)
