"""Whole stages, run on images made here: what several of these tests start from."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

# odd_teachers is named as a user names a module of theirs, so it must be found as one
sys.path.insert(0, str(Path(__file__).parent))

from stage_runs import StageRun, own, run_stages, write_colours

from pipeline.config import CalibrationConfig, Recipe, ViewsConfig
from pipeline.recipes.demo import demo


@pytest.fixture(scope="session")
def oracle_run(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """Teachers that can be checked by eye, in every mode: direct, fixed, in mosaics of 3 × 3 and 2 × 2, and padded."""
    sources = ("QuarterMean", "QuarterMeanFixed", "QuarterMeanCanvas")
    recipe = Recipe(
        name="oracle",
        views=ViewsConfig(
            seed=11, low=(128, 192), high=(256,), high_share=0.3, heldout=0.2, tokens_per_shard=600, canvas_tokens=24
        ),
        teachers=(
            *(own(f"teachers.quarter_mean:{source}") for source in sources),
            own("odd_teachers:CanvasSixteen", batch=2),
            own("odd_teachers:FixedFourteen"),
        ),
        calibration=CalibrationConfig(views=1000),
    )
    root = tmp_path_factory.mktemp("oracle")
    return run_stages(recipe, write_colours(root / "images", 50), root / "cache")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """The demo on fewer views: the three real families, tiny, on seeded noise for weights, two blocks of each."""
    recipe = replace(
        demo(),
        views=replace(demo().views, draws=1, tokens_per_shard=600),
        teachers=tuple(replace(choice, layers=(0,)) for choice in demo().teachers),
    )
    root = tmp_path_factory.mktemp("tiny")
    return run_stages(recipe, write_colours(root / "images", 60), root / "cache")
