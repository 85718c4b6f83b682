"""Teachers that run in the step, as if there were no cache: what training from one is compared with."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch.utils.data import Dataset

from pipeline.config import CalibrationConfig, Recipe, RunConfig, TeacherChoice, ViewsConfig
from pipeline.features.extraction import plan_extraction
from pipeline.features.forward import view_features
from pipeline.features.stage import extract_teacher
from pipeline.features.teacher import RunningTeacher, run_teacher
from pipeline.features.worker import teacher_pixels
from pipeline.inventory.inputs import views_per_input
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.recipes import recipe_of
from pipeline.stats.stage import measure_teachers
from pipeline.views.placements import Placement
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.geometry import Offset
from storage_schemas.format.phi_s import to_stored
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from trainer.data.batch import TeacherTargets, ViewBatch
from trainer.data.datamodule import CachedViews
from trainer.data.dataset import BatchRequest, CachedBatches
from trainer.data.loader import TrainingStream
from trainer.data.schedule import make_schedule
from trainer.data.source import Source
from trainer.evaluation.evaluate import Scores, observe, score
from trainer.learning.module import Distillation
from trainer.objective.token_maps import TokenMaps
from trainer.run.fit import build_model
from trainer.run.metrics import teacher_facts
from trainer.settings.config import TrainRecipe

LOCAL = RunConfig(executor="local")
Said = tuple[np.ndarray, np.ndarray | None]
"""Spatial features (PHI-S units) and summary (raw units) of one view."""


DEMO_TEACHERS = ("dinov3", "siglip2", "sam3")


def small_recipe(encoding: Any = "float32", teachers: Iterable[str] = DEMO_TEACHERS, **changes: Any) -> Recipe:
    """The demo's teachers on two small resolutions, or on other views."""
    demo = recipe_of("demo")
    views = {"low": (128,), "high": (192,), "high_share": 0.34, "draws": 3, "heldout": 0.3}
    views = ViewsConfig(**{**views, "tokens_per_shard": 1152, "canvas_tokens": 24, **changes})
    chosen = tuple(replace(demo.teacher(name), encoding=encoding) for name in teachers)
    return replace(demo, views=views, teachers=chosen, calibration=CalibrationConfig(tokens_per_channel=10))


def write_images(folder: Path, count: int) -> Path:
    """Write images of smooth seeded colours."""
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"image-{number}.png")
    return folder


def make_cache(recipe: Recipe, data: Path, where: Path) -> Cache:
    """Cut the views, run every teacher, measure what is stored."""
    cache = Cache(store=Store(uri=str(where)))
    make_views(cache, recipe, [teacher_spec(choice) for choice in recipe.teachers], str(data), LOCAL, lambda _: None)
    for choice in recipe.teachers:
        extract_teacher(plan_extraction(cache, recipe, choice), LOCAL, lambda _: None)
    measure_teachers(cache, cache.teachers(), LOCAL, lambda _: None)
    return cache


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveBatches(Dataset):
    """Batches as the cache would give them, but for the features: those the teachers give now.

    Of the cache it takes pixels, where windows lie, and PHI-S: what an online trainer would draw and fit.
    """

    source: Source
    choices: tuple[TeacherChoice, ...]
    for_timing: bool = False
    """Whether a teacher that sees mosaics runs only as many as an online trainer would fill with a batch's views, so
    that some views get what others should have."""
    running: dict[str, RunningTeacher] = field(default_factory=dict)
    placements: dict[tuple[str, ViewSet, int], list[Placement]] = field(default_factory=dict)

    def __getitem__(self, requests: tuple[BatchRequest, ...]) -> list[ViewBatch]:
        """Look at each request's views through every teacher."""
        blind = {view_set: replace(set_source, features={}) for view_set, set_source in self.source.sets.items()}
        seen = CachedBatches(source=replace(self.source, sets=blind))[requests]
        return [
            replace(batch, targets={name: self._targets(name, request) for name in self.source.teachers})
            for batch, request in zip(seen, requests, strict=True)
        ]

    def _targets(self, name: str, request: BatchRequest) -> TeacherTargets:
        seen = self._in_few_inputs if self.for_timing else self._in_their_own_inputs
        rows = seen(name, request)
        summaries = [summary for _, summary in rows if summary is not None]
        return TeacherTargets(
            spatial=torch.from_numpy(np.stack([spatial for spatial, _ in rows])).float(),
            summary=torch.from_numpy(np.stack(summaries)).float() if summaries else None,
            start=torch.from_numpy(self.source.sets[request.view_set].features[name].offsets[request.rows]),
        )

    def _in_their_own_inputs(self, name: str, request: BatchRequest) -> list[Said]:
        said: dict[int, Said] = {}
        shards = request.rows // self.source.sets[request.view_set].rows_per_shard
        for shard in np.unique(shards).tolist():
            said |= self._look(name, request.view_set, shard, set(request.rows[shards == shard].tolist()))
        return [said[row] for row in request.rows.tolist()]

    def _in_few_inputs(self, name: str, request: BatchRequest) -> list[Said]:
        """Return as many features as there are views, by no more inputs than they would fill."""
        set_source, count = self.source.sets[request.view_set], len(request.rows)
        per_input = views_per_input(self._running(name).spec, set_source.geometry)
        if per_input == 1:
            return self._in_their_own_inputs(name, request)
        shard = int(request.rows[0]) // set_source.rows_per_shard
        firsts = [place.row for place in self._placements(name, request.view_set, shard)[::per_input]]
        said = list(self._look(name, request.view_set, shard, set(firsts[: -(-count // per_input)])).values())
        return [said[place % len(said)] for place in range(count)]

    @torch.no_grad()
    def _look(self, name: str, view_set: ViewSet, shard: int, rows: set[int]) -> Mapping[int, Said]:
        """Run the teacher on whole inputs (mosaics, where it sees views so) that the rows are in."""
        running, phi_s = self._running(name), self.source.teachers[name].phi_s
        geometry = self.source.sets[view_set].geometry
        per_input = views_per_input(running.spec, geometry)
        every = self._placements(name, view_set, shard)
        wanted = {place // per_input for place, placement in enumerate(every) if placement.row in rows}
        some = [placement for place, placement in enumerate(every) if place // per_input in wanted]
        pixels, said = teacher_pixels(self.source.cache, running.spec, view_set, shard), {}
        places = iter(some)
        for features in view_features(running, view_set, pixels, geometry, some):
            spatial = to_stored(phi_s, features.maps[running.spec.layer].float().numpy())
            for at, placement in zip(range(len(spatial)), places, strict=False):
                summary = None if features.summary is None else features.summary[at].float().numpy()
                said[placement.row] = (spatial[at], summary if running.spec.summary_dim is not None else None)
        return said

    def _running(self, name: str) -> RunningTeacher:
        if name not in self.running:
            [choice] = [choice for choice in self.choices if choice.name == name]
            self.running[name] = run_teacher(choice, "cpu")
        return self.running[name]

    def _placements(self, name: str, view_set: ViewSet, shard: int) -> list[Placement]:
        key = (name, view_set, shard)
        if key not in self.placements:
            commits = {shard: self.source.sets[view_set].features[name].commits[shard]}
            self.placements[key] = [
                Placement(
                    row=row["row"],
                    offset=Offset(row=row["offset_row"], col=row["offset_col"]),
                    mosaic=row["mosaic"],
                    cell=row["cell"],
                )
                for row in self.source.cache.placements(view_set, name, commits).to_pylist()
            ]
        return self.placements[key]


@final
class Views(LightningDataModule):
    """A training stream over any source of batches."""

    def __init__(self, stream: TrainingStream) -> None:
        super().__init__()
        self.stream = stream

    def train_dataloader(self) -> TrainingStream:
        """Return the stream."""
        return self.stream

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        """Move a step's batches."""
        return [part.to(device) for part in batch]


@final
class Losses(Callback):
    """Keeps every step's loss."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, _: Trainer, __: LightningModule, outputs: Any, *___: Any) -> None:
        """Keep the loss."""
        self.values.append(float(outputs["loss"]))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learnt:
    """A student that has learnt."""

    losses: list[float]
    """Of every step."""
    module: Distillation
    scores: Scores


def learn(recipe: TrainRecipe, source: Source, dataset: Dataset) -> Learnt:
    """Train a student on batches, wherever they come from, and score it on the cache's held-out views."""
    model, shape = build_model(recipe, source)
    facts = teacher_facts(source)
    dispersions = {name: fact["dispersion"] for name, fact in facts.items() if fact["dispersion"] is not None}
    module, losses = Distillation(recipe, model, TokenMaps(source, shape.tokens), dispersions), Losses()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=recipe.steps,
        logger=False,
        callbacks=[losses],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, about a Trainer as bare as this one
        trainer.fit(module, Views(TrainingStream(dataset, make_schedule(source, recipe), recipe)))
    heldout = CachedViews(source, recipe).heldout_loader()
    sizes = sorted({view_set.resolution for view_set in source.sets})
    scores = score([observe(module.finished, module.maps, heldout, sizes)], source.teachers, dispersions)
    return Learnt(losses=losses.values, module=module, scores=scores)
