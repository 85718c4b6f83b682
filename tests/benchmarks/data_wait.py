"""How long a student waits for its data, and what reading from the cache costs.

    python -m tests.benchmarks.data_wait [workers]

The `small` preset (ViT-S/16) learns from the demo's three teachers on this machine's CPU, in the trainer's own step.
Wait: the share of the time that steps spent waiting for their batches. Ratio: steps per second from the cache over
steps per second from batches that lie in memory, the two by turns.
"""

import itertools
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import final

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from live import make_cache, small_recipe, write_images

from trainer.data.dataset import CachedBatches
from trainer.data.loader import Batches, TrainingStream
from trainer.data.schedule import make_schedule
from trainer.data.source import Source, open_source
from trainer.learning.module import Distillation
from trainer.objective.token_maps import TokenMaps
from trainer.run.fit import build_model
from trainer.run.metrics import teacher_facts
from trainer.settings.config import TrainRecipe
from trainer.settings.running import DataSettings, RunningSettings

STEPS = 8
"""Of a side, before it is the other's turn: what reading processes have ready then is a small part of them."""
ROUNDS = 8


def recipe_of(workers: int) -> TrainRecipe:
    """The run that is timed."""
    return TrainRecipe(
        name="benchmark",
        student="small",
        steps=STEPS * (ROUNDS + 2),
        data=DataSettings(batch_low=4, batch_high=1),
        running=RunningSettings(workers=workers, accelerator="cpu"),
    )


class Student:
    """A student that takes steps outside Lightning, whose own cost is the same for both sides."""

    def __init__(self, recipe: TrainRecipe, source: Source) -> None:
        model, shape = build_model(recipe, source)
        facts = teacher_facts(source)
        dispersions = {name: one["dispersion"] for name, one in facts.items() if one["dispersion"] is not None}
        self.module = Distillation(recipe, model, TokenMaps(source, shape.tokens), dispersions)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(self, batch: Batches) -> None:
        """Learn from a step's batches."""
        self.optimiser.zero_grad()
        self.module.training_step(batch, 0)["loss"].backward()
        self.optimiser.step()


@final
@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What some steps took (seconds)."""

    clock: float
    waited: float
    """Of the clock: until the next batch was there."""
    processor: float
    """This process's, whatever else the machine did."""


def timed(student: Student, batches: Iterator[Batches]) -> Stretch:
    """Take some steps."""
    began, worked, waited = perf_counter(), process_time(), 0.0
    for _ in range(STEPS):
        asked = perf_counter()
        batch = next(batches)
        waited += perf_counter() - asked
        student.step(batch)
    return Stretch(clock=perf_counter() - began, waited=waited, processor=process_time() - worked)


def turn(
    student: Student, cached: Iterator[Batches], in_memory: Iterator[Batches], first: int
) -> tuple[Stretch, Stretch]:
    """Time both sides; the one that is first comes second in the next turn."""
    if first:
        held = timed(student, in_memory)
        return timed(student, cached), held
    return timed(student, cached), timed(student, in_memory)


def told(ratios: list[float]) -> str:
    """Return a median, with the range."""
    return f"median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}"


def main(workers: int) -> None:
    """Print the wait and the ratio."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder) / "images", 24)
        source = open_source(make_cache(small_recipe("float16"), images, Path(folder) / "cache"))
        recipe = recipe_of(workers)
        student = Student(recipe, source)
        stream = TrainingStream(CachedBatches(source=source), make_schedule(source, recipe), recipe)
        cached = iter(stream)
        held = [next(cached) for _ in range(STEPS)]
        in_memory = itertools.cycle(held)
        timed(student, iter(held))  # warm
        rounds = [turn(student, cached, in_memory, first=number % 2) for number in range(ROUNDS)]
    print(f"{workers} reading processes, {STEPS * ROUNDS} steps of each side, {ROUNDS} turns, one thread")
    print(f"share of the time spent waiting for data: {told([one.waited / one.clock for one, _ in rounds])}")
    print(f"steps/s, cache over memory, by the clock: {told([held.clock / one.clock for one, held in rounds])}")
    print(f"the same by the processor's time: {told([held.processor / one.processor for one, held in rounds])}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
