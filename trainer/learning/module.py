"""The Lightning module: it holds the model, and calls the losses and the optimiser."""

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from typing import Any, final

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from storage_schemas.format.seeds import digest_of
from trainer.data.batch import SecondView, ViewBatch, unit_pixels
from trainer.data.loader import Batches
from trainer.learning.average import decay_at, update_average
from trainer.learning.damp import WeightNoise
from trainer.learning.layer_rates import highest_rates
from trainer.learning.learning_rate import (
    decaying,
    make_optimiser,
    optimiser_groups,
    parameter_groups,
    rate_factor,
    renew_settings,
)
from trainer.learning.micro_batches import MicroBatch, micro_batch_count, micro_batches
from trainer.learning.sharding import renumbered, shard
from trainer.objective.batch_loss import NO_VARIANCES, Variances, batch_loss, mesa
from trainer.objective.token_maps import TokenMaps
from trainer.settings.config import TrainRecipe
from trainer.student.checkpointing import checkpoint_activations, require_no_batch_norm
from trainer.student.model import DistilledModel, ModelOutput


@final
class Distillation(LightningModule):
    """One student learning from the cached features of its teachers."""

    def __init__(
        self,
        recipe: TrainRecipe,
        model: DistilledModel,
        token_maps: TokenMaps,
        dispersions: Mapping[str, float],
        new: Collection[str] = (),
        variances: Variances = NO_VARIANCES,
    ) -> None:
        """Put the parts together.

        Args:
            recipe: recipe of the run.
            model: student and heads.
            token_maps: token maps of the run.
            dispersions: Disp(Θ_y) (rad²) of every teacher with a summary.
            new: names of the model's parameters that its starting weights did not hold.
            variances: see `batch_loss`.
        """
        super().__init__()
        self.recipe, self.dispersions, self.variances = recipe, dispersions, variances
        self.model, self.maps = model, token_maps  # named as in checkpoints
        rates = highest_rates(model, new, recipe.optimiser)
        self.groups = parameter_groups(model, decaying(model, model.student.backbone), rates, recipe.optimiser)
        self.average: DistilledModel | None = None
        if recipe.average.decay is not None:
            self.average = deepcopy(model).eval().requires_grad_(False)
        self.noise: WeightNoise | None = None
        if recipe.damp:
            layer_by_layer = recipe.running.strategy == "fsdp" or recipe.running.checkpointing
            self.noise = WeightNoise(model, recipe.damp, recipe.damp_layers, layer_by_layer=layer_by_layer)
        if recipe.running.checkpointing:
            checkpoint_activations(model)
        if recipe.running.accumulate > 1 or recipe.running.micro_batch_tokens:
            why = "each micro-batch would be normalised by itself"
            require_no_batch_norm(model, "running.accumulate and running.micro_batch_tokens", why)

    @property
    def finished(self) -> DistilledModel:
        """The model that is scored and exported: the moving average if there is one, else the student."""
        return self.model if self.average is None else self.average

    def configure_model(self) -> None:
        """Shard student and average if the strategy shards weights."""
        if self.device_mesh is not None:
            for model in (self.model, self.average):
                if model is not None:
                    shard(model, self.device_mesh["data_parallel"])

    def on_train_start(self) -> None:
        """Give a resumed optimiser the recipe's settings, which may have changed since the checkpoint."""
        optimiser, schedule = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        assert isinstance(optimiser, torch.optim.Optimizer)
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        renew_settings(optimiser, schedule, self.groups, self.recipe, self.global_step)

    def on_train_batch_start(self, _batch: Batches, _batch_idx: int) -> None:
        """Seed dropout and stochastic depth by the step, so that a resumed run draws the same numbers."""
        torch.manual_seed(torch_seed(self.recipe.seed, f"step of rank {self.global_rank}", self.global_step))

    def training_step(self, batch: Batches, _batch_idx: int) -> dict[str, Any]:
        """Return the loss of one step, and its terms by `<partition>/<teacher>/<kind>`.

        A step runs micro-batch by micro-batch. The backward pass of each follows its forward pass, so that only the
        activations of one are in memory. The caller makes the backward pass of the last one: in it DDP averages the
        gradients of the whole step, once.
        """
        self.model.zero_grad()
        *earlier, last = [piece for part in batch for piece in micro_batches(part, self._pieces(part))]
        loss, parts = torch.zeros((), device=self.device), dict[str, Tensor]()
        for piece in earlier:
            total = self._loss(piece, parts)
            with torch.autocast(self.device.type, enabled=False):
                total.backward()
            loss = loss + total.detach()
        return {"loss": loss + self._loss(last, parts), "parts": parts}

    def optimizer_zero_grad(self, _epoch: int, _batch_idx: int, _optimizer: torch.optim.Optimizer) -> None:
        """Keep the gradients: Lightning calls this after `training_step`, which clears them before its first pass."""

    def on_before_optimizer_step(self, _optimizer: torch.optim.Optimizer) -> None:
        """Freeze the backbone for `frozen_trunk` steps: a weight without gradient neither moves nor decays."""
        if self.global_step < self.recipe.optimiser.frozen_trunk:
            self.model.student.backbone.zero_grad(set_to_none=True)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Update the weights and then the average, before a checkpoint or an evaluation of this step."""
        step = self.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            settings = self.recipe.average
            assert settings.decay is not None
            update_average(self.average, self.model, decay_at(step, settings.decay, ramp=settings.ramp))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the recipe's optimiser and learning rate schedule."""
        settings = self.recipe.optimiser
        optimiser = make_optimiser(
            optimiser_groups(self.model, self.groups, settings), settings, sharded=self.device_mesh is not None
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(self.recipe, step))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Number the optimiser's parameters so that a sharded run can resume; a sharded run does so by itself."""
        if self.device_mesh is None:
            [state], optimiser = checkpoint["optimizer_states"], self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimiser, torch.optim.Optimizer)
            checkpoint["optimizer_states"] = [renumbered(state, optimiser, self)]

    def _loss(self, piece: MicroBatch, parts: dict[str, Tensor]) -> Float[Tensor, ""]:
        """Return the part of a step's loss that a micro-batch gives, and add its terms to those of the step."""
        settings, views = self.recipe.loss, piece.views
        weight = {"low": settings.low_weight, "high": settings.high_weight}[views.view_set.partition]
        output = self._output(views)
        terms = batch_loss(output, views, self.maps, self.dispersions, settings, self.variances)
        total, logged = terms.total, dict(terms.parts)
        if views.second is not None:
            distance = self._mesa(output, views, views.second)
            total, logged["mesa"] = total + self.recipe.average.mesa_weight * distance, distance.detach()
        for name, term in logged.items():
            place = f"{views.view_set.partition}/{name}"
            parts[place] = parts.get(place, 0) + piece.share * term
        return weight * piece.share * total

    def _output(self, views: ViewBatch) -> ModelOutput:
        """Run the student on views, with noise on its weights if the recipe has DAMP."""
        if self.noise is not None:
            # the same noise on every rank, so that a run does not depend on the number of ranks
            self.noise.draw(torch_seed(self.recipe.seed, f"noise on {views.view_set.name}", self.global_step))
        window = self._window(views, "attention")
        output = self.model(unit_pixels(views.pixels), views.targets, window=window, uniforms=views.uniforms)
        if self.noise is not None:
            self.noise.require_everywhere(self.model.student.name)
        return output

    def _pieces(self, part: ViewBatch) -> int:
        """Return the number of micro-batches of a batch on this process."""
        side = part.view_set.resolution // self.model.student.stride
        return micro_batch_count(len(part.pixels), side * side, self.recipe.running)

    def _mesa(self, output: ModelOutput, part: ViewBatch, second: SecondView) -> Float[Tensor, ""]:
        assert self.average is not None
        window = self._window(part, "attention of the average")
        with torch.no_grad():
            average = self.average(unit_pixels(second.pixels), [], window=window, uniforms=second.uniforms)
        return mesa(output.student.spatial, average.student.spatial, part, second, self.maps)

    def _window(self, part: ViewBatch, purpose: str) -> int | None:
        key = (self.recipe.seed, purpose, self.global_step, part.view_set.name)
        return self.model.student.draw_window(part.view_set.resolution, key)


def torch_seed(seed: int, purpose: str, number: int = 0) -> int:
    """Return a seed for torch, derived from the run's seed, a purpose and a number such as the step."""
    return int.from_bytes(digest_of((seed, purpose, number))[:8], "little") >> 1
