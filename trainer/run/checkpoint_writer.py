"""Writing checkpoints: a run keeps one, the last, and it is always whole."""

from typing import Any, final

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from trainer.data.loader import Batches
from trainer.run.step_loss import mean_over_processes, require_finite
from trainer.run_folder import RunFolder


@final
class CheckpointWriter(Callback):
    """Replaces the run's checkpoint every few steps, after the last step, and when the run stops early."""

    def __init__(self, run: RunFolder, every: int, steps: int) -> None:
        super().__init__()
        self.run, self.every, self.steps = run, every, steps

    def on_train_batch_end(
        self, trainer: Trainer, _pl_module: LightningModule, outputs: Any, _batch: Batches, _batch_idx: int
    ) -> None:
        """Write a checkpoint if one is due. A loss that is not finite ends the run and leaves the last checkpoint."""
        step = trainer.global_step
        if step % self.every == 0 or step == self.steps or trainer.should_stop:
            [loss] = mean_over_processes(trainer, [outputs["loss"]])
            require_finite(loss, step)
            trainer.save_checkpoint(self.run.checkpoint)  # every process waits until the first has written it
