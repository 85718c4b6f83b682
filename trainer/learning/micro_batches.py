"""Micro-batches: a batch in parts that go through the student one after another, with the loss of the whole batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

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
        count: number of micro-batches, at most that of its views.
    """
    views = len(batch.pixels)
    if count == 1:
        yield MicroBatch(views=batch, share=1.0)
        return
    for number in range(count):
        rows = slice(views * number // count, views * (number + 1) // count)
        part = batch.changed(lambda tensor, rows=rows: tensor[rows])  # type: ignore[misc]
        yield MicroBatch(views=part, share=(rows.stop - rows.start) / views)


def micro_batch_count(views: int, tokens: int, settings: RunningSettings) -> int:
    """Return the number of micro-batches of a batch: `accumulate`, or more where `micro_batch_tokens` asks for it.

    A micro-batch has at least one view.

    Args:
        views: of the batch, on one process.
        tokens: of a view.
        settings: the two settings.
    """
    at_once = max(settings.micro_batch_tokens // tokens, 1) if settings.micro_batch_tokens else views
    return min(max(settings.accumulate, -(-views // at_once)), views)
