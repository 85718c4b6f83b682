"""Running the stages on images made here, and reading what they stored without any of our readers."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from PIL import Image

from pipeline.config import Recipe, RunConfig, TeacherChoice
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.inventory.teacher_maps import map_specs, teacher_spec
from pipeline.stats.stage import measure_teachers
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.objects.store import Store
from teachers.own import own_class

LOCAL = RunConfig(executor="local")


@final
@dataclass(frozen=True, kw_only=True)
class StageRun:
    """A recipe, the images it was run on, where the cache went, and what was said."""

    recipe: Recipe
    data: Path | None
    where: Path
    said: tuple[str, ...]

    @property
    def cache(self) -> Cache:
        """The cache, through our own reader."""
        return Cache(store=Store(uri=str(self.where)))

    @cached_property
    def arrays(self) -> zarr.Group:
        """The cache, through plain zarr-python."""
        return zarr.open_group(self.where / "features.zarr", mode="r")

    @property
    def sets(self) -> list[str]:
        """Names of the view sets."""
        return sorted(self.arrays["views"].group_keys())

    def spec(self, teacher: str) -> TeacherSpec:
        """What a teacher is, or the map of one of its blocks."""
        return {spec.name: spec for choice in self.recipe.teachers for spec in map_specs(choice)}[teacher]

    def table(self, name: str, where: str) -> list[dict[str, Any]]:
        """All rows of a table, shard after shard."""
        return [row for part in self.parts(name, where) for row in part.to_pylist()]

    def parts(self, name: str, where: str) -> list[pa.Table]:
        """The parts of a table, one for each shard."""
        files = sorted((self.where / "tables" / name / where).glob("*.parquet"))
        return [pq.ParquetFile(file).read(use_threads=False) for file in files]


def own(source: str, **more: Any) -> TeacherChoice:
    """Choose a teacher that is a class, by the name it declares unless told."""
    settings = {"name": own_class(source).declared.name, "weights": "own", "precision": "fp32"}
    return TeacherChoice(source=source, **settings | more)


def write_colours(folder: Path, count: int) -> Path:
    """Write images of smooth seeded colours: no two patches alike, no two sizes either."""
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((150 + 4 * number, 110 + 5 * number), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:03d}.png", compress_level=1)
    return folder


def run_stages(recipe: Recipe, data: Path | None, where: Path, run: RunConfig = LOCAL) -> StageRun:
    """Cut the views, run every teacher, measure what is stored."""
    cache, said = Cache(store=Store(uri=str(where))), []
    make_views(cache, recipe, [teacher_spec(one) for one in recipe.teachers], str(data or ""), run, said.append)
    for choice in recipe.teachers:
        extract_teacher(plan_extraction(cache, recipe, choice), run, said.append)
    measure_teachers(cache, cache.teachers(), run, said.append)
    return StageRun(recipe=recipe, data=data, where=where, said=tuple(said))


def contents(folder: Path) -> dict[str, str]:
    """What is in every file of a cache; the temporary files and the claim of a killed process are not part of it."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".partial"]
    files = [path for path in files if path.parent != folder / "leases"]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
