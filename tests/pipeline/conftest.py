"""A small whole cache: every mode of looking, both encodings, several shards to a set, the last one partly filled."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import pytest
from PIL import Image

from pipeline.config import CalibrationConfig, Recipe, RunConfig, TeacherChoice, ViewsConfig
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.recipes import recipe_of
from pipeline.stats.stage import measure_teachers
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store

sys.path.insert(0, str(Path(__file__).parent))  # for modules that several of these tests share

LOCAL = RunConfig(executor="local")
OWN = (
    TeacherChoice(
        name="quarter-mean-fixed",
        source="teachers.quarter_mean:QuarterMeanFixed",
        weights="own",
        precision="fp32",
        encoding="float32",
    ),
    TeacherChoice(
        name="quarter-mean-canvas",
        source="teachers.quarter_mean:QuarterMeanCanvas",
        weights="own",
        precision="fp32",
        compression="zstd",
        batch=1,
    ),
)


@final
@dataclass(frozen=True, kw_only=True)
class SmallRun:
    """A recipe, the images it was run on, and where the cache went."""

    recipe: Recipe
    data: Path
    cache: Path


def small_recipe() -> Recipe:
    """The demo's views, fewer; its `dinov3`, and our own teachers of the other size rules."""
    views = ViewsConfig(
        low=(192,), high=(256,), high_share=0.4, draws=2, heldout=0.5, tokens_per_shard=1152, canvas_tokens=24
    )
    demo = recipe_of("demo")
    teachers = (demo.teacher("dinov3"), *OWN)
    return replace(demo, views=views, teachers=teachers, calibration=CalibrationConfig(tokens_per_channel=10))


def write_images(folder: Path, count: int = 8) -> Path:
    """Write images of smooth seeded colours, no two of one size."""
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((120 + 8 * number, 96 + 16 * number), Image.Resampling.BICUBIC)
        image.save(folder / f"image-{number}.png")
    return folder


def run_pipeline(recipe: Recipe, data: Path, where: Path) -> Cache:
    """Cut the views, run every teacher, measure what is stored."""
    cache = Cache(store=Store(uri=str(where)))
    make_views(cache, recipe, [teacher_spec(one) for one in recipe.teachers], str(data), LOCAL, str)
    for choice in recipe.teachers:
        extract_teacher(plan_extraction(cache, recipe, choice), LOCAL, str)
    measure_teachers(cache, cache.teachers(), LOCAL, str)
    return cache


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A finished run. Nobody may write into its cache; see `copied`."""
    root = tmp_path_factory.mktemp("small-run")
    recipe, data = small_recipe(), write_images(root / "images")
    run_pipeline(recipe, data, root / "cache")
    return SmallRun(recipe=recipe, data=data, cache=root / "cache")


@pytest.fixture
def copied(small_run: SmallRun, tmp_path: Path) -> Path:
    """A copy of the finished cache, to be damaged. Its files are links: put a new file in a file's place."""
    shutil.copytree(small_run.cache, tmp_path / "cache", copy_function=os.link)
    return tmp_path / "cache"


@pytest.fixture
def rewritten(copied: Path) -> Callable[[str, Callable[[bytes], bytes]], Path]:
    """Put other bytes in an object's place, in the copy: `rewritten(name, change)` returns the copy."""

    def rewrite(name: str, change: Callable[[bytes], bytes]) -> Path:
        path = copied / name
        body = change(path.read_bytes())
        path.unlink()
        path.write_bytes(body)
        return copied

    return rewrite
