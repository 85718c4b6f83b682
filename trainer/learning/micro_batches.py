"""Micro-batches: a batch in parts that go through the student one after another, with the loss of the whole batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from trainer.data.batch import ViewBatch
from trainer.settings.running import RunningSettings


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroBatch:
    """Some views of a batch."""

    views: ViewBatch
    share: float
    """Weight of their loss in that of the batch: their share of its views, because every loss is a mean over views."""


def micro_batches(batch: ViewBatch, count: int) -> Iterator[MicroBatch]:
    """Split a batch into micro-batches whose sizes differ by at most one view.

    Args:
        batch: views and targets.
        count: number of micro-batches; of a batch with fewer views, each view is one.
    """
    views = len(batch.pixels)
    count = min(count, views)
    if count == 1:
        yield MicroBatch(views=batch, share=1.0)
        return
    for number in range(count):
        rows = slice(views * number // count, views * (number + 1) // count)
        part = batch.changed(lambda tensor, rows=rows: tensor[rows])  # type: ignore[misc]
        yield MicroBatch(views=part, share=(rows.stop - rows.start) / views)


def micro_batch_count(views: int, tokens: int, settings: RunningSettings) -> int:
    """Return the number of micro-batches of a batch: `accumulate`, or as many more as `micro_batch_tokens` asks for.

    Args:
        views: of the batch, on one process.
        tokens: of a view.
        settings: the two settings.
    """
    if not settings.micro_batch_tokens:
        return settings.accumulate
    views_at_once = max(settings.micro_batch_tokens // tokens, 1)
    return max(settings.accumulate, -(-views // views_at_once))


def also_used(loss: Tensor, model: nn.Module) -> Tensor:
    """Return a loss whose backward pass also reaches, without changing them, the gradients that are there already.

    DDP averages the gradients of those parameters that the last backward pass of a step reaches. A head that only an
    earlier micro-batch has used would keep a gradient of its own on every process.

    Args:
        loss: of the last micro-batch of a step.
        model: what learns.
    """
    return _AlsoUsed.apply(loss, *(weight for weight in model.parameters() if weight.grad is not None))


@final
class _AlsoUsed(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, loss: Tensor, *_used: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], *(None for _ in ctx.needs_input_grad[1:])
