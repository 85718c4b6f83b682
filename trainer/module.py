"""The Lightning module: it carries the model, the objective and the optimiser, and does nothing of its own."""

from collections.abc import Mapping
from typing import Any, final

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from storage_schemas.seeds import digest_of
from trainer.batch import unit_pixels
from trainer.config import TrainRecipe
from trainer.loader import Batches
from trainer.model import DistilledModel
from trainer.objective import TokenMaps, objective
from trainer.schedule import learning_rate_factor, parameter_groups


@final
class Distillation(LightningModule):
    """One student learning from the cached features of its teachers."""

    def __init__(
        self, recipe: TrainRecipe, model: DistilledModel, maps: TokenMaps, dispersions: Mapping[str, float]
    ) -> None:
        """Put the parts together.

        Args:
            recipe: of the run.
            model: student and heads.
            maps: token maps of the run.
            dispersions: Disp(Θ_y) (rad²) of every teacher with a summary.
        """
        super().__init__()
        self.recipe, self.dispersions = recipe, dispersions
        self.model, self.maps = model, maps

    def on_train_batch_start(self, _batch: Batches, _batch_idx: int) -> None:
        """Seed what the model draws (dropout, stochastic depth) by the step, so that a resumed run draws the same."""
        torch.manual_seed(torch_seed(self.recipe.seed, f"step of rank {self.global_rank}", self.global_step))

    def training_step(self, batch: Batches, _batch_idx: int) -> dict[str, Any]:
        """Return the loss of one step, and its parts by `<partition>/<teacher>/<kind>`."""
        settings = self.recipe.loss
        weights = {"low": settings.low_weight, "high": settings.high_weight}
        loss, parts = torch.zeros((), device=self.device), dict[str, torch.Tensor]()
        for part in batch:
            key = (self.recipe.seed, "attention", self.global_step, part.view_set.name)
            window = self.model.student.draw_window(part.view_set.resolution, key)
            output = self.model(unit_pixels(part.pixels), part.targets, window=window, draws=part.draws)
            terms = objective(output, part, self.maps, self.dispersions, settings)
            loss = loss + weights[part.view_set.partition] * terms.total
            parts |= {f"{part.view_set.partition}/{name}": term for name, term in terms.parts.items()}
        return {"loss": loss, "parts": parts}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW under the recipe's schedule."""
        settings, steps = self.recipe.optimiser, self.recipe.steps
        groups = parameter_groups(self.model, self.model.student.backbone, settings)
        optimiser = torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_factor(step, steps=steps, warmup=settings.warmup)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def torch_seed(seed: int, what: str, number: int = 0) -> int:
    """Return a seed for torch that depends on the run's seed and on what it is for."""
    return int.from_bytes(digest_of((seed, what, number))[:8], "little") >> 1
