"""The stream of training batches: it starts at any step, and says how long the student waited for it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, final

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from storage_schemas.format.errors import AbstractStillhouseError
from trainer.data.batch import ViewBatch
from trainer.data.dataset import BatchRequest, training_request
from trainer.data.packed_batch import Parcel, pack, unpack
from trainer.data.schedule import Leg, course_steps
from trainer.settings.config import TrainRecipe
from trainer.settings.running import RunningSettings

Batches = list[ViewBatch]
Answer = Batches | Parcel | AbstractStillhouseError
"""What a reading process sends: batches, in one piece where it is another process, or the error that it met."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which part of every step one training process takes."""

    rank: int = 0
    """Number of the process."""
    world: int = 1
    """Training processes."""


ALONE = Share()
"""The whole of every step."""


@final
class TrainingStream:
    """Every step of a run, from the one that its state names. Lightning saves and restores the state with the rest."""

    def __init__(self, dataset: Dataset[Batches], legs: list[Leg], recipe: TrainRecipe, share: Share = ALONE) -> None:
        """Describe the stream; nothing is read yet.

        Args:
            dataset: turns requests into batches; it reads the cache.
            legs: what each step takes.
            recipe: of the run.
            share: of this training process.
        """
        self.dataset, self.legs, self.share = dataset, legs, share
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
        rank, world = self.share.rank, self.share.world
        for step, parts in enumerate(course_steps(self.legs, start), start):
            second = step >= self.second_from
            yield tuple(training_request(part.share(rank, world), self.seed, second=second) for part in parts)


@final
class Answers(Dataset[Answer]):
    """A dataset that answers as PyTorch brings it whole from one process to another: with its refusals, in parcels."""

    def __init__(self, dataset: Dataset[Batches]) -> None:
        self.dataset = dataset

    def __getitem__(self, requests: tuple[BatchRequest, ...]) -> Answer:
        try:
            batches = self.dataset[requests]
        except AbstractStillhouseError as refusal:
            return refusal
        return batches if get_worker_info() is None else pack(batches)


@final
class Loader:
    """One answer per request, in their order; where a reading process was refused, the same refusal is raised here."""

    def __init__(self, answers: DataLoader[Answer]) -> None:
        self.answers = answers

    def __iter__(self) -> Iterator[Batches]:
        for answer in self.answers:
            if isinstance(answer, AbstractStillhouseError):
                raise answer
            yield unpack(answer) if isinstance(answer, Parcel) else answer


def open_loader(
    dataset: Dataset[Batches], requests: Iterable[tuple[BatchRequest, ...]], settings: RunningSettings
) -> Loader:
    """Return a loader that reads one answer per request, in their order, however many processes read."""
    # a forked process would inherit a file system's threads and sockets, which do not survive the fork
    apart: dict[str, Any] = {"multiprocessing_context": "forkserver", "prefetch_factor": settings.read_ahead}
    answers = DataLoader(
        Answers(dataset),
        batch_size=None,
        sampler=requests,
        num_workers=settings.workers,
        pin_memory=torch.cuda.is_available() and settings.accelerator != "cpu",
        **(apart if settings.workers else {}),
    )
    return Loader(answers)
