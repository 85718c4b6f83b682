"""`train --dry-run`: the memory of each training process and the arithmetic of a step, before anything is trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch

from storage_schemas.format.views import Partition, ViewSet
from trainer.data.batch import ViewBatch
from trainer.data.dataset import CachedBatches, training_request
from trainer.data.order import StepPart
from trainer.data.schedule import Schedule, batch_sizes, make_schedule
from trainer.data.source import Source
from trainer.learning.micro_batches import MicroBatch, micro_batch_count
from trainer.learning.module import Distillation
from trainer.learning.sharding import sharded_units
from trainer.learning.step_cost import PieceCost, piece_costs
from trainer.objective.token_maps import TokenMaps
from trainer.run.fit import build_model
from trainer.settings.config import TrainRecipe

MOMENTS = 2
"""Numbers that AdamW and LAMB keep for each weight."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SetPlan:
    """A step's share of one view set, on one process."""

    views: int
    """Views of the batch."""
    micro_batches: int
    batch_bytes: int
    """Bytes of views and targets."""
    activation_bytes: int
    """Largest bytes of activations at one moment."""
    flop: float
    """Floating-point operations for all views, with global attention."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What each training process needs for a step."""

    processes: int
    precision: str
    strategy: str
    weights: Mapping[str, int]
    """Bytes of what is there during the whole step: parameters, gradients, optimiser and so on."""
    sets: Mapping[ViewSet, SetPlan]
    mean_flop: Sequence[float]
    """Mean floating-point operations of a step in each stage, over the view sets that it draws."""

    @property
    def batch_bytes(self) -> int:
        """Bytes of the largest batch of each partition."""
        return sum(max(found.batch_bytes for found in sets) for sets in self._by_partition().values())

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations: one micro-batch at a time is in memory."""
        return max(found.activation_bytes for found in self.sets.values())

    @property
    def bytes(self) -> int:
        """Largest number of bytes at one moment of a step."""
        return sum(self.weights.values()) + self.batch_bytes + self.activation_bytes

    def lines(self) -> Iterator[str]:
        """Yield lines for the user."""
        yield f"train: memory of a step on each of {self.processes} processes ({self.precision}, {self.strategy}):"
        parts = {**self.weights, "views and targets": self.batch_bytes, "activations": self.activation_bytes}
        for name, count in {**parts, "together": self.bytes}.items():
            yield f"train:   {name:<26}{count / 1e9:>10.3f} GB"
        yield "train: arithmetic and activations by view set, on each process:"
        for view_set, found in self.sets.items():
            pieces = f"{found.views} views in {found.micro_batches} micro-batches"
            yield (
                f"train:   {view_set.name:<10} {pieces:<34}{found.activation_bytes / 1e9:>9.3f} GB"
                f"{found.flop / 1e12:>12.4f} TFLOP"
            )
        for number, flop in enumerate(self.mean_flop):
            stage = f" of stage {number}" if len(self.mean_flop) > 1 else ""
            every = self.processes * flop
            yield f"train: a step{stage}: {flop / 1e12:.4f} TFLOP on each process, {every / 1e12:.4f} in all"
        yield "train: not counted: the CUDA context, workspaces of kernels, and memory that the allocator cannot use"

    def _by_partition(self) -> dict[Partition, list[SetPlan]]:
        by_partition: dict[Partition, list[SetPlan]] = {}
        for view_set, found in self.sets.items():
            by_partition.setdefault(view_set.partition, []).append(found)
        return by_partition


def plan_step(recipe: TrainRecipe, source: Source) -> StepPlan:
    """Return what a step of a run needs. Neither weights nor activations are allocated.

    Args:
        recipe: recipe of the run.
        source: the cache. One training view of each set is read from it.

    Raises:
        SettingError: a setting, a student or a view set that cannot be used.
    """
    schedule = make_schedule(source, recipe)
    every = replace(recipe, vit=replace(recipe.vit, windows=()))  # windows save arithmetic in some steps
    with torch.device("meta"):
        model, shape = build_model(every, source)
    dispersions = dict.fromkeys(source.teachers, 1.0)
    module = Distillation(every, model, TokenMaps(source, shape.tokens), dispersions)
    weights = _weights(module, recipe)
    batches = {view_set: _batch(source, view_set, recipe) for view_set in source.sets}
    counts = {
        view_set: micro_batch_count(len(batch.pixels), shape.tokens[view_set.resolution] ** 2, recipe.running)
        for view_set, batch in batches.items()
    }
    pieces = [_largest(batch, counts[view_set]) for view_set, batch in batches.items()]
    alone = len({view_set.partition for view_set in source.sets}) == 1 and max(counts.values()) == 1
    costs = piece_costs(module, pieces, first=alone)
    sets = {
        view_set: _set_plan(batches[view_set], counts[view_set], piece, cost)
        for view_set, piece, cost in zip(batches, pieces, costs, strict=True)
    }
    return StepPlan(
        processes=_processes(recipe),
        precision=recipe.precision,
        strategy=recipe.running.strategy if _processes(recipe) > 1 else "one process",
        weights=weights,
        sets=sets,
        mean_flop=_mean_flop(schedule, sets),
    )


def _processes(recipe: TrainRecipe) -> int:
    return recipe.running.devices * recipe.running.nodes


def _weights(module: Distillation, recipe: TrainRecipe) -> dict[str, int]:
    """Return the bytes of what each process holds of the model during a whole step."""
    processes, sharded = _processes(recipe), recipe.running.strategy == "fsdp"
    shards = processes if sharded else 1
    every = sum(weight.nbytes for weight in module.model.parameters())
    learning = sum(weight.nbytes for weight in module.model.parameters() if weight.requires_grad)
    weights = {"parameters": every // shards, "gradients": learning // shards}
    weights["optimiser"] = MOMENTS * learning // shards
    if module.average is not None:
        weights["moving average"] = every // shards
    if sharded and processes > 1:
        units = [sum(weight.nbytes for weight in unit.parameters()) for unit in sharded_units(module.model)]
        # the rest of the model is gathered for the whole forward pass, and the next unit while one runs
        weights["gathered weights"] = every - sum(units) + 2 * max(units)
    elif processes > 1:
        weights["buckets of DDP"] = learning
    return weights


def _batch(source: Source, view_set: ViewSet, recipe: TrainRecipe) -> ViewBatch:
    """Return a process's batch of a view set, which repeats one view."""
    rows = source.sets[view_set].rows["train"][:1]
    part = StepPart(view_set=view_set, rows=rows, epochs=np.zeros(1, dtype=np.int64))
    second = bool(recipe.average.mesa_weight)
    [batch] = CachedBatches(source=source)[(training_request(part, recipe.seed, second=second),)]
    views = batch_sizes(recipe)[view_set.partition] // _processes(recipe)
    return batch.changed(lambda tensor: tensor.expand(views, *tensor.shape[1:]))


def _largest(batch: ViewBatch, count: int) -> MicroBatch:
    views = -(-len(batch.pixels) // count)
    return MicroBatch(views=batch.changed(lambda tensor: tensor[:views]), share=views / len(batch.pixels))


def _set_plan(batch: ViewBatch, count: int, piece: MicroBatch, cost: PieceCost) -> SetPlan:
    sizes: list[int] = []
    batch.changed(lambda tensor: sizes.append(tensor.numel() * tensor.itemsize) or tensor)  # type: ignore[func-returns-value]
    return SetPlan(
        views=len(batch.pixels),
        micro_batches=count,
        batch_bytes=sum(sizes),
        activation_bytes=cost.activations,
        flop=cost.flop / piece.share,
    )


def _mean_flop(schedule: Schedule, sets: Mapping[ViewSet, SetPlan]) -> list[float]:
    means = []
    for scheduled in schedule:
        drawn, mean = scheduled.order.sets, 0.0
        for partition in scheduled.order.batches:
            shares = {
                view_set: found.proportion for view_set, found in drawn.items() if view_set.partition == partition
            }
            mean += sum(share * sets[view_set].flop for view_set, share in shares.items()) / sum(shares.values())
        means.append(mean)
    return means
