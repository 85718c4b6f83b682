"""The Lightning module: it carries the model, the objective and the optimiser, and does nothing of its own."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, final

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.func import functional_call

from storage_schemas.format.seeds import digest_of
from trainer.data.batch import ViewBatch, unit_pixels
from trainer.data.loader import Batches
from trainer.learning.average import share_kept, take_in
from trainer.learning.damp import damped_weights
from trainer.learning.learning_rate import decaying, make_optimiser, parameter_groups, rate_factor
from trainer.learning.sharding import renumbered, shard
from trainer.objective.objective import TokenMaps, mesa, objective
from trainer.settings.config import TrainRecipe
from trainer.student.model import DistilledModel, ModelOutput


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
        self.decay = decaying(model, model.student.backbone)
        self.average: DistilledModel | None = None
        if recipe.average.decay is not None:
            self.average = deepcopy(model).eval().requires_grad_(False)

    @property
    def finished(self) -> DistilledModel:
        """What is scored and exported: the moving average where there is one."""
        return self.model if self.average is None else self.average

    def configure_model(self) -> None:
        """Shard student and average where the strategy asks for it."""
        if self.device_mesh is not None:
            for model in (self.model, self.average):
                if model is not None:
                    shard(model, self.device_mesh["data_parallel"])

    def on_train_batch_start(self, _batch: Batches, _batch_idx: int) -> None:
        """Seed what the model draws (dropout, stochastic depth) by the step, so that a resumed run draws the same."""
        torch.manual_seed(torch_seed(self.recipe.seed, f"step of rank {self.global_rank}", self.global_step))

    def training_step(self, batch: Batches, _batch_idx: int) -> dict[str, Any]:
        """Return the loss of one step, and its parts by `<partition>/<teacher>/<kind>`."""
        settings = self.recipe.loss
        weights = {"low": settings.low_weight, "high": settings.high_weight}
        loss, parts = torch.zeros((), device=self.device), dict[str, Tensor]()
        for part in batch:
            output = self._look(part)
            terms = objective(output, part, self.maps, self.dispersions, settings)
            total, shown = terms.total, dict(terms.parts)
            if part.second is not None:
                apart = self._apart_from_average(output, part)
                total, shown["mesa"] = total + self.recipe.average.mesa_weight * apart, apart.detach()
            loss = loss + weights[part.view_set.partition] * total
            parts |= {f"{part.view_set.partition}/{name}": term for name, term in shown.items()}
        return {"loss": loss, "parts": parts}

    def on_before_optimizer_step(self, _optimizer: torch.optim.Optimizer) -> None:
        """Keep the trunk as it is for as long as the recipe says: what has no gradient does not move, nor decay."""
        if self.global_step < self.recipe.optimiser.frozen_trunk:
            self.model.student.backbone.zero_grad(set_to_none=True)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, and let the average take the new weights in, before anything is kept of the step."""
        step = self.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            assert self.recipe.average.decay is not None
            take_in(self.average, self.model, share_kept(step, self.recipe.average.decay))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the recipe's optimiser under its schedule."""
        settings = self.recipe.optimiser
        optimiser = make_optimiser(parameter_groups(self.model, self.decay, settings), settings)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(self.recipe, step))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave a state of the optimiser from which a sharded run can go on; one in shards leaves it so by itself."""
        if self.device_mesh is None:
            [state], optimiser = checkpoint["optimizer_states"], self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimiser, torch.optim.Optimizer)
            checkpoint["optimizer_states"] = [renumbered(state, optimiser, self)]

    def _look(self, part: ViewBatch) -> ModelOutput:
        """Look at a batch through the student, under noise where the recipe asks for it."""
        settings = {"window": self._window(part, "attention"), "draws": part.draws}
        pixels = unit_pixels(part.pixels)
        if not self.recipe.damp:
            return self.model(pixels, part.targets, **settings)
        # the same on every rank, so that a run does not depend on how many there are
        seed = torch_seed(self.recipe.seed, f"noise on {part.view_set.name}", self.global_step)
        damped = damped_weights(self.model, self.recipe.damp, seed)
        return functional_call(self.model, damped, (pixels, part.targets), settings)

    def _apart_from_average(self, output: ModelOutput, part: ViewBatch) -> Float[Tensor, ""]:
        assert self.average is not None
        assert part.second is not None
        with torch.no_grad():
            seen = self.average(
                unit_pixels(part.second.pixels),
                [],
                window=self._window(part, "attention of the average"),
                draws=part.second.draws,
            )
        return mesa(output.student.spatial, seen.student.spatial, part, part.second, self.maps)

    def _window(self, part: ViewBatch, whose: str) -> int | None:
        key = (self.recipe.seed, whose, self.global_step, part.view_set.name)
        return self.model.student.draw_window(part.view_set.resolution, key)


def torch_seed(seed: int, what: str, number: int = 0) -> int:
    """Return a seed for torch that depends on the run's seed and on what it is for."""
    return int.from_bytes(digest_of((seed, what, number))[:8], "little") >> 1
