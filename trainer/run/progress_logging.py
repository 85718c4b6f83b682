"""Logging between steps: the loss history, the progress bar, the speed."""

import os
from time import perf_counter
from typing import Any, final

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from trainer.data.datamodule import CachedViews
from trainer.data.loader import Batches
from trainer.learning.learning_rate import rate_factor
from trainer.run.heldout_evaluation import HeldoutEvaluation
from trainer.run.metrics import add_speed
from trainer.run.step_loss import mean_over_processes, require_finite
from trainer.run_folder import RunFolder

QUIET_SECONDS = 10.0
"""Time between two progress lines if the output is not a terminal (seconds)."""


@final
class ProgressLogging(Callback):
    """Logs the loss history, shows the progress, measures the speed, and stops a run whose loss is not finite."""

    def __init__(self, run: RunFolder, datamodule: CachedViews, evaluation: HeldoutEvaluation) -> None:
        super().__init__()
        self.run, self.datamodule, self.evaluation = run, datamodule, evaluation
        self.settings = datamodule.recipe.running
        self.total, self.recent = Throughput(), Throughput()

    def on_train_start(self, trainer: Trainer, _pl_module: LightningModule) -> None:
        """Open the progress bar at the step where training starts."""
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
        """Count the views of the step, and log it if a row is due."""
        waited, views = self.datamodule.stream.take_wait(), sum(len(part.pixels) for part in batch)
        for throughput in (self.total, self.recent):
            throughput.add(views * trainer.world_size, waited, perf_counter() - self.started + waited)
        step = trainer.global_step
        if step % self.settings.log_every == 0 or step == self.datamodule.recipe.steps:
            self._log(trainer, step, outputs)
        self.bar.update()

    def on_train_end(self, trainer: Trainer, _pl_module: LightningModule) -> None:
        """Close the progress bar, and store the speed."""
        self.bar.close()
        if trainer.is_global_zero and self.total.views:
            add_speed(self.run, self.total.views_per_second, self.total.wait_share)

    def on_exception(self, _trainer: Trainer, _pl_module: LightningModule, _exception: BaseException) -> None:
        """Close the progress bar, so that the error message starts on a line of its own."""
        if hasattr(self, "bar"):
            self.bar.close()

    def _log(self, trainer: Trainer, step: int, outputs: Any) -> None:
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
        speed = {"views/s": f"{self.recent.views_per_second:.1f}", "waiting": f"{self.recent.wait_share:.1%}"}
        fidelities = {name: f"{fidelity:.2f}" for name, fidelity in self.evaluation.fidelities.items()}
        self.bar.set_postfix({"loss": f"{loss:.3f}", **speed, **fidelities}, refresh=False)
        self.recent = Throughput()

    def _learning_rate(self, step: int) -> float:
        # the optimiser already has the learning rate of the next step
        recipe = self.datamodule.recipe
        return recipe.optimiser.lr * rate_factor(recipe, step - 1)


@final
class Throughput:
    """Views and time of some steps."""

    def __init__(self) -> None:
        self.views, self.waited, self.seconds = 0, 0.0, 0.0

    def add(self, views: int, waited: float, seconds: float) -> None:
        """Add a step.

        Args:
            views: its views.
            waited: time that it waited for data (seconds).
            seconds: time that it took, with the waiting (seconds).
        """
        self.views, self.waited, self.seconds = self.views + views, self.waited + waited, self.seconds + seconds

    @property
    def views_per_second(self) -> float:
        """Views per second."""
        return self.views / self.seconds

    @property
    def wait_share(self) -> float:
        """Share of the time that was spent waiting for data."""
        return self.waited / self.seconds
