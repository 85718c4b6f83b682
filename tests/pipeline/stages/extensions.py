"""A small cache, what it may be extended by, and how it is extended. What tests of extensions share."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stage_runs import LOCAL, StageRun, own

from pipeline.config import Recipe, ViewsConfig
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.views.sampling import draw_set
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store

BASE = Recipe(
    name="growing",
    views=ViewsConfig(low=(128,), high=(), high_share=0.4, heldout=0.2, tokens_per_shard=600, canvas_tokens=24),
    teachers=(
        own("teachers.quarter_mean:QuarterMean"),
        own("teachers.quarter_mean:QuarterMeanFixed"),
        own("odd_teachers:CanvasSixteen", batch=2),
    ),
)
IMAGES = 20
"""Images of the small cache."""
VIEW = ("image", "draw", "split", "sha256", "left", "top", "width", "height", "flip")
"""What makes a view, wherever it lies."""


def grown(recipe: Recipe = BASE, **views: Any) -> Recipe:
    """A recipe with other settings of the views."""
    return replace(recipe, views=replace(recipe.views, **views))


def cut(recipe: Recipe, data: Path | None, where: Path, *, extend: bool = True) -> list[str]:
    """Cut views."""
    said: list[str] = []
    specs = [teacher_spec(choice) for choice in recipe.teachers]
    cache = Cache(store=Store(uri=str(where)))
    make_views(cache, recipe, specs, str(data or ""), LOCAL, said.append, extend=extend)
    return said


def grow(recipe: Recipe, data: Path, where: Path) -> StageRun:
    """Extend a cache, and run every teacher over what is new."""
    said = cut(recipe, data, where)
    cache = Cache(store=Store(uri=str(where)))
    for choice in recipe.teachers:
        extract_teacher(plan_extraction(cache, recipe, choice), LOCAL, said.append)
    return StageRun(recipe=recipe, data=data, where=where, said=tuple(said))


def copied(source: Path, where: Path) -> Path:
    """A cache to be changed."""
    return Path(shutil.copytree(source, where))


def views_of(run: StageRun) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Every view, by what it is of; that none is there twice is part of it."""
    rows = [(name, row) for name in run.sets for row in run.table("views", name)]
    views = {(row["image"], row["draw"], name): row for name, row in rows}
    assert len(views) == len(rows)
    return views


def drawn_by(keys: Sequence[str], config: ViewsConfig) -> set[tuple[str, int, str]]:
    """Every view that a recipe draws of images."""
    return {(key, draw, draw_set(key, draw, config).name) for key in keys for draw in range(config.draws)}


def may_change(name: str) -> bool:
    """Whether a file says how long an array is, or what a cache or a teacher's features are of."""
    parts = name.split("/")
    manifest = name == "features.zarr/views/zarr.json" or (len(parts) == 4 and parts[1] == "teachers")
    array = parts[-2] in ("pixels", "spatial", "summary") or parts[-3] == "detail"
    return parts[-1] == "zarr.json" and (manifest or array)
