"""Stopping a run on a signal, in all its processes after the same step."""

from typing import Any, final

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from trainer.data.loader import Batches
from trainer.stopping import StopRequest


@final
class StopAtStepEnd(Callback):
    """Ends the run after the step in which any of its processes received a signal.

    It is the first callback: an evaluation is then put off, and a checkpoint written.
    """

    def __init__(self, request: StopRequest) -> None:
        super().__init__()
        self.request = request

    @property
    def received(self) -> int:
        """Number of the signal that this process knows of; 0 if there was none."""
        return self.request.received

    def on_train_start(self, _trainer: Trainer, _pl_module: LightningModule) -> None:
        """From now on a signal waits for the end of a step."""
        self.request.deferred = True

    def on_train_batch_end(
        self, trainer: Trainer, _pl_module: LightningModule, _outputs: Any, _batch: Batches, _batch_idx: int
    ) -> None:
        """Stop if any process received a signal."""
        number = torch.tensor(self.received, device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            number = trainer.strategy.reduce(number, reduce_op="max")
        self.agree(trainer, int(number))

    def agree(self, trainer: Trainer, number: int) -> None:
        """Stop this process, if the largest number among all processes is that of a signal."""
        if number:
            self.request.received = number
            trainer.should_stop = True
