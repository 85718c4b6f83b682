"""Small caches that a student can learn from, written by the pipeline's own writer."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pytest
import torch
from identities import features_identity, views_identity

from storage_schemas.cache import Cache
from storage_schemas.format import layout
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import TeacherManifest, ViewSetManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS, phi_s_digest
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.format.tables import PLACEMENTS, VIEWS
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import publish_group
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, array_record, commit, create_array, open_shard, write_table_part
from storage_schemas.small_arrays import array_digest, write_small_arrays
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings

sys.path.insert(0, str(Path(__file__).parent))  # for modules that several of these tests share

PATCH = 16
MARGIN = 1
ROWS_PER_SHARD = 4
HELDOUT = 5
"""Every fifth view is held out."""


def spec(name: str, dim: int, **changes: Any) -> TeacherSpec:
    base = TeacherSpec(
        name=name,
        model=f"{name} of the tests",
        dim=dim,
        summary_dim=6,
        patch=PATCH,
        size_rule="any",
        native=64,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        random_weights=True,
        licence=f"{name}'s own",
    )
    return replace(base, **changes)


ANY = spec("any", 8)
FIXED = spec("fixed", 12, size_rule="fixed", native=48)
CANVAS = spec("canvas", 4, size_rule="canvas", summary_dim=None, native=96)
SETS = {"low-32": 10, "low-48": 14, "high-64": 9}


@final
@dataclass(frozen=True, kw_only=True)
class TestTeacher:
    """A teacher that sees mean colours: tokens and summary are seeded linear maps of them."""

    spec: TeacherSpec

    def tokens(self, view_set: ViewSet) -> int:
        return 3 if self.spec.size_rule == "fixed" else view_set.resolution // PATCH

    def look(self, window: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray | None]:
        random = np.random.default_rng(len(self.spec.name))
        weights = random.normal(size=(3, self.spec.dim))
        colours = cell_means(window / 127.5 - 1, tokens)
        spatial = colours @ weights * 3 + 1
        if self.spec.summary_dim is None:
            return spatial, None
        return spatial, colours.mean(axis=(0, 1)) @ random.normal(size=(3, self.spec.summary_dim)) + 0.5

    @property
    def phi_s(self) -> PhiS:
        random = np.random.default_rng(self.spec.dim)
        rotation, _ = np.linalg.qr(random.normal(size=(self.spec.dim, self.spec.dim)))
        return PhiS(mean=np.full(self.spec.dim, 1.0), rotation=rotation, scale=2.0)


def cell_means(window: np.ndarray, tokens: int) -> np.ndarray:
    edges = np.linspace(0, len(window), tokens + 1).round().astype(int)
    rows = [window[start:stop].mean(axis=0) for start, stop in pairwise(edges)]
    columns = [np.stack(rows)[:, start:stop].mean(axis=1) for start, stop in pairwise(edges)]
    return np.stack(columns, axis=1)


def canvas(view_set: ViewSet, row: int, side: int) -> np.ndarray:
    """A smooth field of colour, another for every view."""
    random = np.random.default_rng([view_set.resolution, row])
    place = np.arange(side) / side
    waves = [
        np.cos(2 * np.pi * (np.add.outer(a * place, b * place) + c)) for a, b, c in random.uniform(0.3, 2, size=(3, 3))
    ]
    return np.round(127.5 + 100 * np.stack(waves, axis=2) * random.uniform(0.3, 1, size=3)).astype(np.uint8)


class CacheMaker:
    """Writes a cache stage by stage, so that tests can stop between them."""

    def __init__(self, folder: Path, sets: Mapping[str, int] = SETS, margin: int = MARGIN) -> None:
        self.store = Store(uri=str(folder))
        self.cache = Cache(store=self.store)
        self.manifest = ViewsManifest(
            identity=views_identity("tests", views=dict(sets), margin=margin),
            sets={
                (view_set := ViewSet.parse(name)): ViewSetManifest(
                    grid=ShardGrid(counts=(count,), rows_per_shard=ROWS_PER_SHARD),
                    geometry=CanvasGeometry(resolution=view_set.resolution, patch=PATCH, margin=margin),
                )
                for name, count in sets.items()
            },
        )

    def root(self) -> "CacheMaker":
        publish_group(self.store, "", {"format": layout.FORMAT_VERSION, "recipe": "tests"})
        return self

    def views(self, shards: Callable[[int], bool] = lambda _shard: True) -> "CacheMaker":
        self.root()
        publish_group(self.store, "views", self.manifest.attributes())
        for view_set, shape in self.manifest.sets.items():
            array = ArraySpec(
                path=layout.pixels_array(view_set),
                shape=(shape.grid.rows, shape.geometry.side, shape.geometry.side, 3),
                dtype="uint8",
                rows_per_shard=ROWS_PER_SHARD,
            )
            create_array(self.store, array)
            held = heldout_rows(shape.grid)
            for shard in filter(shards, range(shape.grid.shards)):
                slots = shape.grid.slots(shard)
                key = ShardKey(unit=layout.views_unit(view_set), shard=shard, identity=self.manifest.digest)
                with open_shard(self.store, array, shard) as writer:
                    for row in slots:
                        writer.append(canvas(view_set, row, shape.geometry.side))
                split = ["heldout" if row in held else "train" for row in slots]
                table = pa.Table.from_pylist(list(map(view_row, slots, split)), VIEWS)
                name = layout.table_part("views", view_set.name, shard)
                part = write_table_part(self.store, name, table, slots.start, key)
                commit(self.store, key, [array_record(writer, key), part])
        return self

    def teacher(
        self, teacher: TeacherSpec, sets: Callable[[ViewSet, int], bool] = lambda _view_set, _shard: True
    ) -> "CacheMaker":
        looking = TestTeacher(spec=teacher)
        phi_s, group = looking.phi_s, f"teachers/{teacher.name}"
        arrays = {"mean": phi_s.mean, "rotation": phi_s.rotation, "scale": np.array(phi_s.scale)}
        write_small_arrays(self.store, f"{group}/phi_s", arrays)
        publish_group(self.store, f"{group}/phi_s", {"sha256": phi_s_digest(phi_s)})
        manifest = TeacherManifest(
            spec=teacher,
            identity=features_identity(teacher, self.manifest.digest),
            tokens={view_set: looking.tokens(view_set) for view_set in self.manifest.sets},
        )
        publish_group(self.store, group, manifest.attributes())
        for view_set, shape in self.manifest.sets.items():
            for shard in range(shape.grid.shards):
                if sets(view_set, shard):
                    self._look(looking, manifest, view_set, shard)
        return self

    def stats(self, teacher: TeacherSpec) -> "CacheMaker":
        looking, group = TestTeacher(spec=teacher), f"teachers/{teacher.name}/stats"
        manifest = self.cache.teacher_manifest(teacher.name)
        assert manifest is not None
        tokens_by_set, summaries, views = {}, [], 0
        for view_set, shape in self.manifest.sets.items():
            seen = [self._seen(looking, view_set, row) for row in range(shape.grid.rows)]
            tokens = np.concatenate([spatial.reshape(-1, teacher.dim) for spatial, _ in seen])
            tokens_by_set[view_set.name] = tokens.astype(np.float64)
            summaries += [summary for _, summary in seen]
            views += len(seen)
        pooled = np.concatenate(list(tokens_by_set.values()))
        arrays = {}
        for prefix, part in {"": pooled, **{f"{name}/": part for name, part in tokens_by_set.items()}}.items():
            spectrum = np.linalg.eigvalsh(np.cov(part.T))[::-1].copy()
            arrays |= {f"{prefix}mean": part.mean(axis=0), f"{prefix}variance": part.var(axis=0)}
            arrays |= {f"{prefix}spectrum": spectrum, f"{prefix}rounding": np.array([float(part.size), 0.0, 0.0, 0.0])}
        if teacher.summary_dim is not None:
            direction = np.mean(summaries, axis=0) / np.linalg.norm(np.mean(summaries, axis=0))
            cosines = np.array([summary @ direction / np.linalg.norm(summary) for summary in summaries])
            arrays |= {"dispersion": np.mean(np.arccos(cosines) ** 2), "mean_direction": direction}
        write_small_arrays(self.store, group, arrays)
        about = {
            "identity": manifest.digest,
            "views": views,
            "summarised": teacher.summary_dim is not None,
            "tokens": len(pooled),
            "sets": {name: len(part) for name, part in tokens_by_set.items()},
            "shards": {view_set.name: [[0, shape.grid.shards]] for view_set, shape in self.manifest.sets.items()},
            "arrays": {name: array_digest(values) for name, values in arrays.items()},
        }
        publish_group(self.store, group, about)
        return self

    def _look(self, looking: TestTeacher, manifest: TeacherManifest, view_set: ViewSet, shard: int) -> None:
        teacher, grid, tokens = looking.spec, self.manifest.sets[view_set].grid, looking.tokens(view_set)
        spatial = ArraySpec(
            path=layout.spatial_array(view_set, teacher.name),
            shape=(grid.rows, tokens, tokens, teacher.dim),
            dtype="float16",
            rows_per_shard=ROWS_PER_SHARD,
        )
        summary = ArraySpec(
            path=layout.summary_array(view_set, teacher.name),
            shape=(grid.rows, teacher.summary_dim or 1),
            dtype="float32",
            rows_per_shard=ROWS_PER_SHARD,
        )
        arrays = [spatial] if teacher.summary_dim is None else [spatial, summary]
        unit = layout.features_unit(view_set, teacher.name)
        key, records = ShardKey(unit=unit, shard=shard, identity=manifest.digest), []
        seen = [self._seen(looking, view_set, row) for row in grid.slots(shard)]
        for place, array in enumerate(arrays):
            create_array(self.store, array)
            with open_shard(self.store, array, shard) as writer:
                for said in seen:
                    writer.append(np.asarray(said[place], dtype=array.dtype))
            records.append(array_record(writer, key))
        rows = [self._place(teacher, view_set, row) for row in grid.slots(shard)]
        name = layout.table_part("placements", f"{teacher.name}/{view_set.name}", shard)
        table = pa.Table.from_pylist(rows, PLACEMENTS)
        records.append(write_table_part(self.store, name, table, grid.slots(shard).start, key))
        commit(self.store, key, records)

    def _seen(self, looking: TestTeacher, view_set: ViewSet, row: int) -> tuple[np.ndarray, np.ndarray | None]:
        place, side = self._place(looking.spec, view_set, row), view_set.resolution
        top, left = place["offset_row"] * PATCH, place["offset_col"] * PATCH
        window = canvas(view_set, row, side + self._margin(view_set) * PATCH)[top : top + side, left : left + side]
        spatial, summary = looking.look(window, looking.tokens(view_set))
        stored = (spatial - looking.phi_s.mean) @ looking.phi_s.rotation.T / looking.phi_s.scale
        return stored.astype(np.float16), summary

    def _place(self, teacher: TeacherSpec, view_set: ViewSet, row: int) -> dict[str, Any]:
        return placement(teacher, view_set, row, self._margin(view_set))

    def _margin(self, view_set: ViewSet) -> int:
        return self.manifest.sets[view_set].geometry.margin


def heldout_rows(grid: ShardGrid) -> set[int]:
    """The last fifth of each generation, as `views` lays them out."""
    ends = [0, *(grid.first(number).shards for number in range(1, len(grid.counts) + 1))]
    generations = [[row for shard in range(*span) for row in grid.slots(shard)] for span in pairwise(ends)]
    return {row for rows in generations for row in rows[len(rows) - -(-len(rows) // HELDOUT) :]}


def view_row(row: int, split: str) -> dict[str, Any]:
    drawn = {"row": row, "image": f"image {row}", "draw": 0, "split": split, "sha256": "0" * 64, "flip": False}
    return drawn | dict.fromkeys(("left", "top", "width", "height"), 0.0) | {"image_height": 1, "image_width": 1}


def placement(teacher: TeacherSpec, view_set: ViewSet, row: int, margin: int) -> dict[str, Any]:
    offset = np.random.default_rng([len(teacher.name), view_set.resolution, row]).integers(0, margin + 1, size=2)
    return {"row": row, "offset_row": int(offset[0]), "offset_col": int(offset[1]), "mosaic": None, "cell": None}


def small_recipe(**changes: Any) -> TrainRecipe:
    running = {"log_every": 1, "checkpoint_every": 4, "loggers": ("csv",), "accelerator": "cpu"}
    base = TrainRecipe(
        name="tests",
        student="test_vit",
        steps=6,
        heads=HeadSettings(width=32),
        data=DataSettings(batch_low=4, batch_high=2, window_shards=2),
        optimiser=OptimiserSettings(lr=2e-3, warmup=2),
        running=RunningSettings(**{**running, **changes.pop("running", {})}),
    )
    return replace(base, **changes)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tensors as small as these are slower on two threads than on one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def full_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A whole cache: three view sets, three teachers, statistics. Tests only read it."""
    maker = CacheMaker(tmp_path_factory.mktemp("cache")).views()
    for teacher in (ANY, FIXED, CANVAS):
        maker.teacher(teacher).stats(teacher)
    return maker.cache


@pytest.fixture(scope="session")
def larger_cache() -> Callable[[Path], Cache]:
    """Writes a cache of few views that are large enough for activations to outweigh weights."""

    def write(folder: Path) -> Cache:
        maker = CacheMaker(folder, {"low-128": 16, "high-256": 8}).views()
        for teacher in (ANY, FIXED, CANVAS):
            maker.teacher(teacher).stats(teacher)
        return maker.cache

    return write


@pytest.fixture
def cache_maker() -> type[CacheMaker]:
    """What writes caches."""
    return CacheMaker


@pytest.fixture
def specs() -> dict[str, TeacherSpec]:
    """The teachers of the tests, by name."""
    return {teacher.name: teacher for teacher in (ANY, FIXED, CANVAS)}


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., TrainRecipe]:
    """A recipe of some steps for the whole cache, with changes."""
    return small_recipe
