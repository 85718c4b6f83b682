"""Measuring tasks with labels on held-out views between steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, final

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from storage_schemas.format.errors import Problem, SettingError
from trainer.data.batch import unit_pixels
from trainer.data.datamodule import CachedViews
from trainer.data.loader import Batches, Share
from trainer.data.source import Source
from trainer.downstream.during_training import label_heldout, summary_scores
from trainer.downstream.labels import LabelledViews
from trainer.downstream.student_features import own_summary
from trainer.learning.module import Distillation
from trainer.learning.sharding import whole
from trainer.run.metrics import add_task_scores, has_task_scores
from trainer.run.processes import gather
from trainer.run.stop_at_step_end import StopAtStepEnd
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe

Rows = dict[tuple[str, int], np.ndarray]
"""Summary of each view, by view set and row slot."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledRows:
    """The held-out views of one set, with labels."""

    rows: list[int]
    """Row slots."""
    keys: list[str]
    """Keys of their images."""
    labelled: LabelledViews


def label_rows(source: Source, recipe: TrainRecipe) -> dict[str, LabelledRows]:
    """Return the labelled held-out views of each view set that has some; nothing where the run measures no tasks.

    Raises:
        SettingError, MissingError: labels that cannot be used.
    """
    if not recipe.running.labels:
        return {}
    rows, keys = {}, {}
    for view_set, found in source.sets.items():
        if heldout := found.rows["heldout"].tolist():
            shards = sorted({row // found.rows_per_shard for row in heldout})
            tables = [source.cache.shard_views(view_set, shard).to_pydict() for shard in shards]
            by_row = {row: key for table in tables for row, key in zip(table["row"], table["image"], strict=True)}
            rows[view_set.name], keys[view_set.name] = heldout, [by_row[row] for row in heldout]
    if not rows:
        found_there, fix = "there is no held-out view", "cut views with a held-out share, or leave running.labels out"
        raise SettingError("running.labels", [Problem(place=source.cache.store.uri, found=found_there, fix=fix)])
    labelled = label_heldout(keys, recipe.running.labels, recipe.running.label_parts)
    return {name: LabelledRows(rows=rows[name], keys=keys[name], labelled=labelled[name]) for name in rows}


@final
class HeldoutTasks(Callback):
    """Measures tasks before the first step, every `tasks_every` steps, and after the last step."""

    def __init__(
        self, run: RunFolder, datamodule: CachedViews, stop: StopAtStepEnd, views: Mapping[str, LabelledRows]
    ) -> None:
        """Describe the measurements.

        Args:
            run: folder of the run.
            datamodule: its views.
            stop: what stops the run on a signal.
            views: labelled held-out views by view set.
        """
        super().__init__()
        self.run, self.datamodule, self.stop, self.views = run, datamodule, stop, views

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the untrained student, or what a run that was stopped has not measured."""
        if self._is_due(trainer) and not trainer.strategy.broadcast(has_task_scores(self.run, trainer.global_step)):
            self._measure(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, _outputs: Any, _batch: Batches, _batch_idx: int
    ) -> None:
        """Measure if it is time."""
        if self._is_due(trainer):
            self._measure(trainer, pl_module)

    def _is_due(self, trainer: Trainer) -> bool:
        every, step = self.datamodule.recipe.running.tasks_every, trainer.global_step
        return bool(self.views) and (step in (0, self.datamodule.recipe.steps) or bool(every and step % every == 0))

    def _measure(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Distillation)
        last = trainer.global_step == self.datamodule.recipe.steps
        by_process = gather((self._summaries(trainer, module, last=last), self.stop.received))
        if not last and (number := max(received for _, received in by_process)):
            self.stop.agree(trainer, number)
            return
        if trainer.is_global_zero:
            summaries = {key: row for rows, _ in by_process for key, row in rows.items()}
            scores: dict[str, float] = {}
            for name, views in self.views.items():
                of_set = np.stack([summaries[name, row] for row in views.rows])
                found = summary_scores(of_set, views.labelled, views.keys)
                scores |= {f"{task}/{name}": value for task, value in found.items()}
            add_task_scores(self.run, trainer.global_step, scores)
            for logger in trainer.loggers:
                logger.log_metrics(scores, trainer.global_step)
            told = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            tqdm.write(f"step {trainer.global_step}: held-out accuracy: {told}")
        trainer.strategy.barrier()

    @torch.no_grad()
    def _summaries(self, trainer: Trainer, module: Distillation, *, last: bool) -> Rows:
        """Return the summaries of this process's share of the held-out views; fewer if a signal came."""
        finished, found = module.finished, Rows()
        training = finished.training
        finished.eval()
        with trainer.precision_plugin.forward_context(), whole(finished):
            for rows, batches in takewhile(lambda _: last or not self.stop.received, self._batches(trainer)):
                for batch in batches:
                    summary = own_summary(finished(unit_pixels(batch.pixels.to(module.device)), []).student)
                    if summary is None:
                        place, problem = self.datamodule.recipe.student, "has no summary to measure tasks on"
                        raise SettingError("running.labels", [Problem(place=place, found=problem)])
                    values = summary.float().cpu().numpy()
                    found |= {(batch.view_set.name, row): value for row, value in zip(rows, values, strict=True)}
        finished.train(training)
        return found

    def _batches(self, trainer: Trainer) -> Iterator[tuple[list[int], Batches]]:
        """Yield this process's held-out batches, each with its row slots."""
        share, data = Share(rank=trainer.global_rank, world=trainer.world_size), self.datamodule
        for request, batches in zip(data.heldout_requests(share), data.heldout_loader(share), strict=True):
            yield request.rows.tolist(), batches
