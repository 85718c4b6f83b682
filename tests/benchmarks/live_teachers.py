"""What it would cost to run the teachers in every step.

    python -m tests.benchmarks.live_teachers [student]

The same student learns from the same views on this machine's CPU: once from the cache, and once with the demo's three
teachers run in the step, SAM3 on mosaics as full as a batch's views can make them. The two by turns, so that both meet
the same disturbances; the ratio of their rates is printed, by the clock and by the processor's time.
"""

import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from tests.benchmarks.data_wait import ROUNDS, STEPS, Student, recipe_of, timed, told

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from live import LiveBatches, make_cache, small_recipe, write_images

from trainer.data.dataset import CachedBatches
from trainer.data.loader import TrainingStream
from trainer.data.schedule import make_schedule
from trainer.data.source import open_source


def main(name: str) -> None:
    """Print the ratio."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        images, recipe = write_images(Path(folder) / "images", 24), small_recipe("float16")
        source = open_source(make_cache(recipe, images, Path(folder) / "cache"))
        run = replace(recipe_of(0), student=name)
        student, schedule = Student(run, source), make_schedule(source, run)
        cached = iter(TrainingStream(CachedBatches(source=source), schedule, run))
        live = iter(TrainingStream(LiveBatches(source=source, choices=recipe.teachers, for_timing=True), schedule, run))
        timed(student, cached), timed(student, live)  # warm
        pairs = [(timed(student, cached), timed(student, live)) for _ in range(ROUNDS)]
    print(
        f"student {name}, teachers {', '.join(one.name for one in recipe.teachers)} (demo size), {STEPS * ROUNDS} steps"
    )
    print(f"steps/s, cache over live, by the clock: {told([slow.clock / fast.clock for fast, slow in pairs])}")
    print(f"the same by the processor's time: {told([slow.processor / fast.processor for fast, slow in pairs])}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tiny")
