"""Measuring before a run how fast it will be: run some forwards of each teacher, and write one shard of features."""

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import final

import numpy as np
import torch

from pipeline.config import RunConfig, TeacherChoice
from pipeline.features.teacher import RunningTeacher, run_teacher
from pipeline.inventory.units import Unit
from pipeline.plan.plan import TeacherPlan
from pipeline.plan.speed import TeacherSpeed
from pipeline.workers.device import device_of
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import in_order
from storage_schemas.format.encodings import as_stored
from storage_schemas.format.shard_format import ArraySpec, encode_index
from storage_schemas.objects.publish import TEMPORARY, publish
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardWriter
from teachers.base import normalise

WARM_UP = 1
"""Batches before the clock starts: in them torch chooses or compiles kernels, and takes memory."""
BATCHES = 3
"""Batches on the clock."""
ENTRIES = 4
"""Different views in the shard of noise that is written."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTask:
    """One teacher that is to be measured."""

    choice: TeacherChoice
    sides: tuple[int, ...]
    """Sides of its inputs (pixels)."""
    array: ArraySpec
    """The array that one shard is written of."""
    views: int
    """Views in that shard."""


@final
class SpeedProbe:
    """The worker of a probe."""

    def __init__(self, *, store: Store, run: RunConfig) -> None:
        torch.set_num_threads(run.threads)
        self._store, self._run = store, run

    def probe(self, task: ProbeTask) -> TeacherSpeed:
        """Build a teacher as `extract` does, run some batches of noise, and write a shard of noise.

        Raises:
            MissingError: its weights cannot be found.
            StorageError: the store cannot be written.
        """
        running = run_teacher(task.choice, self._run.device, compiled=self._run.compiled)
        seconds = {side: _seconds_per_input(running, side) for side in task.sides}
        written, writing = _write(self._store, task)
        device = device_of(running.teacher.device).name
        return TeacherSpeed(device=device, seconds=seconds, written=written, writing=writing)


def probe_teachers(store: Store, teachers: Sequence[TeacherPlan], run: RunConfig) -> dict[str, TeacherSpeed]:
    """Measure planned teachers, one after another. Nothing stays in the store.

    Args:
        store: where the cache is, or will be.
        teachers: their plans; none of them is refused.
        run: executor and device.
    """
    tasks = [_task(teacher) for teacher in teachers]
    with open_pool(partial(SpeedProbe, store=store, run=run), replace(run, workers=1), tasks=1, forwards=True) as pool:
        speeds = list(in_order(pool.run(SpeedProbe.probe, tasks)))
    return {task.choice.name: speed for task, speed in zip(tasks, speeds, strict=True)}


def _task(teacher: TeacherPlan) -> ProbeTask:
    unit = max(teacher.features[teacher.choice.encoding], key=_spatial_bytes)
    views = len(unit.grid.slots(0))
    return ProbeTask(choice=teacher.choice, sides=tuple(teacher.inputs), array=unit.arrays[0], views=views)


def _spatial_bytes(unit: Unit) -> int:
    return unit.arrays[0].entry_bytes * unit.grid.views


def _seconds_per_input(running: RunningTeacher, side: int) -> float:
    noise = np.random.default_rng(side).integers(0, 256, (running.batch, side, side, 3), dtype=np.uint8)
    pixels = torch.from_numpy(noise)
    for batch in range(WARM_UP + BATCHES):
        if batch == WARM_UP:
            began = time.perf_counter()
        inputs = normalise(pixels.to(running.teacher.device), running.teacher.spec)
        # copying features to the CPU waits for the device
        running.encode(inputs).spatial.half().cpu()
    return (time.perf_counter() - began) / BATCHES / running.batch


def _write(store: Store, task: ProbeTask) -> tuple[int, float]:
    """Write a shard under a name that no cache uses, delete it, and return its size and the seconds of writing."""
    draws = np.random.default_rng(0)
    numbers = draws.standard_normal((ENTRIES, *task.array.entry_shape), dtype=np.float32)
    if task.choice.encoding == "pca8":  # latents are not chosen yet: numbers of a few steps each stand for them
        entries = np.rint(2 * numbers).astype(np.int8)
    else:
        entries = as_stored(numbers, task.array.coding)
    with _deleted_after(store, f"tables/probe-{uuid.uuid4().hex}{TEMPORARY}") as name:
        began = time.perf_counter()
        with publish(store, name) as sink:
            writer = ShardWriter(task.array, sink)
            for entry in islice(cycle(entries), task.views):
                writer.append(entry)
            sink.write(encode_index(writer.spans, task.array.rows_per_shard))
        return sink.size, time.perf_counter() - began


@contextmanager
def _deleted_after(store: Store, name: str) -> Iterator[str]:
    """Let the block write an object; afterwards delete it, and every folder that was made for it."""
    folder, made = os.path.dirname(store.path(name)), list[str]()
    while store.is_local and not os.path.isdir(folder):
        made.append(folder)
        folder = os.path.dirname(folder)
    try:
        yield name
    finally:
        store.remove(name)
        for folder in made:
            with suppress(OSError):  # another process put something there meanwhile, or the folder was never made
                os.rmdir(folder)
