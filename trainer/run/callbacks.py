"""What happens between steps: the history is kept, a checkpoint left, the progress shown."""

import os
from time import perf_counter
from typing import Any, final

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.objects.publish import replace_whole
from trainer.data.datamodule import CachedViews
from trainer.data.loader import Batches
from trainer.learning.learning_rate import rate_factor
from trainer.run.examiner import Examiner
from trainer.run.metrics import add_speed
from trainer.run_folder import RunFolder

QUIET_SECONDS = 10.0
"""Time between two progress lines where there is no terminal to rewrite one on (seconds)."""


@final
class Journal(Callback):
    """Counts views and time, keeps the history, shows the progress, and stops a run whose loss is no number."""

    def __init__(self, run: RunFolder, datamodule: CachedViews, examiner: Examiner) -> None:
        super().__init__()
        self.run, self.datamodule, self.examiner = run, datamodule, examiner
        self.settings = datamodule.recipe.running
        self.total, self.recent = Pace(), Pace()

    def on_train_start(self, trainer: Trainer, _pl_module: LightningModule) -> None:
        """Open the progress bar where the run starts."""
        self.bar = tqdm(
            desc="train",
            initial=trainer.global_step,
            total=self.datamodule.recipe.steps,
            unit="step",
            disable=not trainer.is_global_zero,
            mininterval=0.5 if os.isatty(2) else QUIET_SECONDS,
        )

    def on_train_batch_start(
        self, _trainer: Trainer, _pl_module: LightningModule, _batch: Batches, _batch_idx: int
    ) -> None:
        """Start the clock of a step."""
        self.started = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, _pl_module: LightningModule, outputs: Any, batch: Batches, _batch_idx: int
    ) -> None:
        """Count the step, and write a row where one is due."""
        waited, views = self.datamodule.stream.take_wait(), sum(len(part.pixels) for part in batch)
        for pace in (self.total, self.recent):
            pace.add(views * trainer.world_size, waited, perf_counter() - self.started + waited)
        step = trainer.global_step
        if step % self.settings.log_every == 0 or step == self.datamodule.recipe.steps:
            self._write(trainer, step, outputs)
        self.bar.update()

    def on_train_end(self, trainer: Trainer, _pl_module: LightningModule) -> None:
        """Close the bar, and note the speed."""
        self.bar.close()
        if trainer.is_global_zero and self.total.views:
            add_speed(self.run, self.total.views_per_second, self.total.wait_share)

    def on_exception(self, _trainer: Trainer, _pl_module: LightningModule, _exception: BaseException) -> None:
        """Leave the terminal tidy."""
        if hasattr(self, "bar"):
            self.bar.close()

    def _write(self, trainer: Trainer, step: int, outputs: Any) -> None:
        loss, *parts = mean_over_processes(trainer, [outputs["loss"], *outputs["parts"].values()])
        values = {
            "loss": require_finite(loss, step),
            "lr": self._learning_rate(step),
            "views_per_second": self.recent.views_per_second,
            "wait_share": self.recent.wait_share,
            **dict(zip(outputs["parts"], parts, strict=True)),
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step)
        shown = {"loss": f"{loss:.3f}", "views/s": f"{self.recent.views_per_second:.1f}"}
        matched = {name: f"{fidelity:.2f}" for name, fidelity in self.examiner.fidelities.items()}
        self.bar.set_postfix({**shown, "waiting": f"{self.recent.wait_share:.1%}", **matched}, refresh=False)
        self.recent = Pace()

    def _learning_rate(self, step: int) -> float:
        # the optimiser's own is that of the step to come
        recipe = self.datamodule.recipe
        return recipe.optimiser.lr * rate_factor(recipe, step - 1)


@final
class Pace:
    """How fast a stretch of steps went."""

    def __init__(self) -> None:
        self.views, self.waited, self.seconds = 0, 0.0, 0.0

    def add(self, views: int, waited: float, seconds: float) -> None:
        """Add a step: its views, and the time it took (seconds), of which it waited for data."""
        self.views, self.waited, self.seconds = self.views + views, self.waited + waited, self.seconds + seconds

    @property
    def views_per_second(self) -> float:
        """Views per second."""
        return self.views / self.seconds

    @property
    def wait_share(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waited / self.seconds


@final
class Keeper(Callback):
    """Leaves one checkpoint, always whole: the last."""

    def __init__(self, run: RunFolder, every: int, steps: int) -> None:
        super().__init__()
        self.run, self.every, self.steps = run, every, steps

    def on_train_batch_end(
        self, trainer: Trainer, _pl_module: LightningModule, outputs: Any, _batch: Batches, _batch_idx: int
    ) -> None:
        """Replace the checkpoint where it is due, but never by one that no run should go on from."""
        step = trainer.global_step
        if step % self.every == 0 or step == self.steps or trainer.should_stop:
            [loss] = mean_over_processes(trainer, [outputs["loss"]])
            require_finite(loss, step)
            beside = self.run.checkpoint.with_suffix(".partial")
            trainer.save_checkpoint(beside)
            if trainer.is_global_zero:
                replace_whole(beside, self.run.checkpoint)


def mean_over_processes(trainer: Trainer, values: list[torch.Tensor]) -> list[float]:
    """Return numbers that every process has a share of as they are of the whole step; all of them must ask."""
    stacked = torch.stack([value.detach().float() for value in values])
    return trainer.strategy.reduce(stacked, reduce_op="mean").tolist()


def require_finite(value: float, step: int) -> float:
    """Return a loss that is a number.

    Raises:
        ContractError: it is none.
    """
    if value - value != 0:
        fix = "lower optimiser.lr, lengthen optimiser.warmup, or set optimiser.gradient_clip"
        raise ContractError("training", [Problem(place=f"step {step}", found=f"the loss is {value}", fix=fix)])
    return value
