"""The stream of training batches: it starts at any step, and says how long the student waited for it."""

from collections.abc import Iterable, Iterator
from itertools import islice
from time import perf_counter
from typing import Any, final

import torch
from torch.utils.data import DataLoader

from trainer.batch import ViewBatch
from trainer.config import RunningSettings
from trainer.dataset import BatchRequest, CachedBatches, training_request
from trainer.order import Order, steps

Batches = list[ViewBatch]


@final
class TrainingStream:
    """Every step of a run, from the one that its state names. Lightning saves and restores the state with the rest."""

    def __init__(
        self, dataset: CachedBatches, order: Order, length: int, settings: RunningSettings, rank: int, world: int
    ) -> None:
        """Describe the stream; nothing is read yet.

        Args:
            dataset: reads the cache.
            order: what each step takes.
            length: steps of the whole run.
            settings: reading processes and how far they read ahead.
            rank: number of this training process.
            world: training processes.
        """
        self.dataset, self.order, self.length, self.settings = dataset, order, length, settings
        self.rank, self.world = rank, world
        self.step = 0
        self.waited = 0.0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batches]:
        batches = iter(open_loader(self.dataset, self._requests(self.step), self.settings))
        while self.step < self.length:
            asked = perf_counter()
            batch = next(batches)
            self.waited += perf_counter() - asked
            self.step += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return where the stream stands: everything else follows from the recipe and the cache."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved state."""
        self.step = state["step"]

    def take_wait(self) -> float:
        """Return how long batches were waited for (seconds) since this was last asked."""
        waited, self.waited = self.waited, 0.0
        return waited

    def _requests(self, start: int) -> Iterator[tuple[BatchRequest, ...]]:
        for step in islice(steps(self.order, start), self.length - start):
            yield tuple(training_request(part.share(self.rank, self.world), self.order.seed) for part in step)


def open_loader(
    dataset: CachedBatches, requests: Iterable[tuple[BatchRequest, ...]], settings: RunningSettings
) -> DataLoader:
    """Return a loader that reads one answer per request, in their order, however many processes read."""
    # a forked process would inherit a file system's threads and sockets, which do not survive the fork
    apart: dict[str, Any] = {"multiprocessing_context": "forkserver", "prefetch_factor": settings.read_ahead}
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=requests,
        num_workers=settings.workers,
        pin_memory=torch.cuda.is_available() and settings.accelerator != "cpu",
        **(apart if settings.workers else {}),
    )
