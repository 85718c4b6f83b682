"""Caches of a few views, and the steps by which a user makes one: cutting, extending, extracting, measuring."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from pipeline.config import CalibrationConfig, Recipe, RunConfig, TeacherChoice, ViewsConfig
from pipeline.features.stage import make_features
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.inventory.unfinished import unfinished_teachers
from pipeline.stats.stage import measure_teachers
from pipeline.views.stage import make_views, require_recipe
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store

History = tuple[str, ...]
"""How the views were made: `made`, then for each extension what it added, `images` or `views`."""

LOCAL = RunConfig(executor="local", max_rejected=0.9)
MADE = ("made",)
IMAGES, MORE = 9, 3
"""Images of a new cache, and images that an extension adds."""
TOO_SMALL = (2, 10)
"""Images that are rejected."""
TEACHERS = {
    "direct": TeacherChoice(name="direct", source="tiny_teachers:Direct", weights="own", precision="fp32"),
    "fixed": TeacherChoice(
        name="fixed", source="tiny_teachers:Fixed", weights="own", precision="fp32", encoding="int8", compression="zstd"
    ),
    "canvas": TeacherChoice(
        name="canvas", source="tiny_teachers:Canvas", weights="own", precision="fp32", encoding="float32", batch=1
    ),
}
"""One of each size rule, one of each encoding."""


def may_grow(history: History) -> list[str]:
    """Return what can be added to a cache: images twice, views once."""
    return [more for more in ("images", "views") if history.count(more) < {"images": 2, "views": 1}[more]]


def recipe_of(history: History, teachers: Iterable[str] = TEACHERS, **settings: object) -> Recipe:
    """Return the recipe of a cache with a history."""
    grown = {"draws": 2, "low": (64, 96)} if "views" in history else {"draws": 1, "low": (64,)}
    views = ViewsConfig(high=(), heldout=0.2, tokens_per_shard=128, canvas_tokens=10, **grown)
    return Recipe(
        name="tiny",
        views=replace(views, **settings),
        teachers=tuple(TEACHERS[name] for name in sorted(teachers)),
        calibration=CalibrationConfig(tokens_per_channel=1),
    )


def write_images(folder: Path) -> Path:
    """Write the images of all caches, and a list for each number of extensions by images."""
    folder.mkdir(parents=True)
    numbers = range(IMAGES + 2 * MORE)
    for number in numbers:
        side = 10 if number in TOO_SMALL else 70
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side + 4 * number, side + 5 * number), Image.Resampling.BICUBIC)
        image.save(folder / image_key(number), compress_level=1)
    for added in range(3):
        (folder / f"{added}.txt").write_text("\n".join(map(image_key, numbers[: IMAGES + added * MORE])))
    return folder


def image_key(number: int) -> str:
    """Return the name of an image."""
    return f"{number:03d}.png"


@final
@dataclass(frozen=True, kw_only=True)
class TinyCache:
    """A cache in a folder, and the images that it is made from."""

    where: Path
    images: Path

    @property
    def cache(self) -> Cache:
        """The cache, by our own reader."""
        return Cache(store=Store(uri=str(self.where)))

    def listed(self, history: History) -> str:
        """Return the images of a history, as DATA names them."""
        return str(self.images / f"{history.count('images')}.txt")

    def cut(self, history: History, teachers: Iterable[str], *, extend: bool = False) -> None:
        """Cut views, as `make views` does."""
        cache, recipe = self.cache, recipe_of(history, teachers)
        manifest = require_recipe(cache, recipe, extend=extend)
        specs = [teacher_spec(choice) for choice in recipe.teachers]
        if manifest is not None:
            specs = unfinished_teachers(cache, manifest, recipe.teachers)
        make_views(cache, recipe, specs, self.listed(history), LOCAL, str, extend=extend)

    def extract(self, history: History, teachers: Iterable[str], name: str) -> None:
        """Run a teacher, as `make extract` does: missing views that it needs are cut before."""
        cache, recipe, choice = self.cache, recipe_of(history, {*teachers, name}), TEACHERS[name]
        make_features(cache, recipe, choice, self.listed(history), LOCAL, str)

    def measure(self, name: str) -> None:
        """Measure what a teacher stored, as `make stats` does."""
        cache = self.cache
        cache.require()
        measure_teachers(cache, [name], LOCAL, str)
