"""The stream of training batches. It can start at any step, and it measures how long training waits for data."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, final

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from storage_schemas.format.errors import AbstractStillhouseError
from trainer.data.batch import ViewBatch
from trainer.data.dataset import BatchRequest, training_request
from trainer.data.packed_batch import PackedBatch, pack, unpack
from trainer.data.reader_signals import obey_second_sigterm, start_forkserver
from trainer.data.schedule import Schedule, scheduled_steps
from trainer.settings.config import TrainRecipe
from trainer.settings.running import RunningSettings

Batches = list[ViewBatch]
"""The batches of one step, one for each partition."""
Result = Batches | PackedBatch | AbstractStillhouseError
"""What a reader process sends for one step."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The part of every step that one training process takes."""

    rank: int = 0
    """Number of the process, from 0."""
    world: int = 1
    """Number of training processes."""


WHOLE = Share()
"""The share of a single training process."""


@final
class TrainingStream:
    """The batches of every step of a run, from the step in its state. Lightning saves and restores the state."""

    def __init__(
        self, dataset: Dataset[Batches], schedule: Schedule, recipe: TrainRecipe, share: Share = WHOLE
    ) -> None:
        """Describe the stream; nothing is read yet.

        Args:
            dataset: turns requests into batches; it reads the cache.
            schedule: the order of views.
            recipe: recipe of the run.
            share: share of this training process.
        """
        self.dataset, self.schedule, self.share = dataset, schedule, share
        self.seed, self.length, self.settings = recipe.seed, recipe.steps, recipe.running
        self.second_from = recipe.average.mesa_start if recipe.average.mesa_weight else self.length
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
        """Return the step of the stream. Everything else follows from the recipe and the cache."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a saved state."""
        self.step = state["step"]

    def take_wait(self) -> float:
        """Return how long training waited for batches (seconds) since the last call."""
        waited, self.waited = self.waited, 0.0
        return waited

    def _requests(self, start: int) -> Iterator[tuple[BatchRequest, ...]]:
        rank, world = self.share.rank, self.share.world
        for step, parts in enumerate(scheduled_steps(self.schedule, start), start):
            second = step >= self.second_from
            yield tuple(training_request(part.share(rank, world), self.seed, second=second) for part in parts)


@final
class ReaderDataset(Dataset[Result]):
    """A dataset whose results PyTorch can carry to another process: errors are returned, and batches are packed."""

    def __init__(self, dataset: Dataset[Batches]) -> None:
        self.dataset = dataset

    def __getitem__(self, requests: tuple[BatchRequest, ...]) -> Result:
        try:
            batches = self.dataset[requests]
        except AbstractStillhouseError as error:
            return error
        return batches if get_worker_info() is None else pack(batches)


@final
class BatchLoader:
    """The batches of each request, in order. An error of a reader process is raised here as it was there."""

    def __init__(self, results: DataLoader[Result]) -> None:
        self.results = results

    def __iter__(self) -> Iterator[Batches]:
        for result in self.results:
            if isinstance(result, AbstractStillhouseError):
                raise result
            yield unpack(result) if isinstance(result, PackedBatch) else result


def open_loader(
    dataset: Dataset[Batches], requests: Iterable[tuple[BatchRequest, ...]], settings: RunningSettings
) -> BatchLoader:
    """Return a loader that reads the batches of each request, in order, with any number of reader processes."""
    # a forked process would inherit a file system's threads and sockets, which do not survive the fork
    readers: dict[str, Any] = {
        "multiprocessing_context": "forkserver",
        "prefetch_factor": settings.read_ahead,
        "worker_init_fn": obey_second_sigterm,
    }
    if settings.workers:
        start_forkserver()
    results = DataLoader(
        ReaderDataset(dataset),
        batch_size=None,
        sampler=requests,
        num_workers=settings.workers,
        pin_memory=torch.cuda.is_available() and settings.accelerator != "cpu",
        **(readers if settings.workers else {}),
    )
    return BatchLoader(results)
