"""Writing checkpoints: the last one is always whole, and some before it may be kept."""

import os
from typing import Any, final

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.objects.publish import as_storage_error
from trainer.data.loader import Batches
from trainer.run.step_loss import mean_over_processes, require_finite
from trainer.run_folder import RunFolder
from trainer.settings.running import RunningSettings


@final
class CheckpointWriter(Callback):
    """Replaces the run's checkpoint every few steps, after the last step, and when the run stops early."""

    def __init__(self, run: RunFolder, settings: RunningSettings, steps: int) -> None:
        super().__init__()
        self.run, self.every, self.keep, self.steps = run, settings.checkpoint_every, settings.keep, steps
        self.last = 0
        """Step of the last checkpoint; 0 before the first."""

    def on_train_start(self, trainer: Trainer, _pl_module: LightningModule) -> None:
        """Remember the checkpoint that the run resumes from."""
        self.last = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, _pl_module: LightningModule, outputs: Any, _batch: Batches, _batch_idx: int
    ) -> None:
        """Write a checkpoint if one is due. A loss that is not finite ends the run and leaves the last checkpoint."""
        step = trainer.global_step
        if step % self.every == 0 or step == self.steps or trainer.should_stop:
            [loss] = mean_over_processes(trainer, [outputs["loss"]])
            require_finite(loss, step)
            if trainer.is_global_zero:
                self._keep_last()
            trainer.save_checkpoint(self.run.checkpoint)  # every process waits until the first has written it
            self.last = step

    def _keep_last(self) -> None:
        """Give the last checkpoint a second name, which it keeps, and delete those that are not to be kept.

        Checkpoints of later steps are those of a run that went back to an earlier one: they are not of this run.
        """
        if self.keep > 1 and self.last:
            second = self.run.earlier_checkpoint(self.last)
            with as_storage_error(str(second)):
                second.unlink(missing_ok=True)
                os.link(self.run.checkpoint, second)
        earlier = [step for step in self.run.earlier_steps() if step <= self.last]
        kept = earlier[len(earlier) - (self.keep - 1) :] if self.keep > 1 else []
        for step in set(self.run.earlier_steps()) - set(kept):
            self.run.earlier_checkpoint(step).unlink(missing_ok=True)
