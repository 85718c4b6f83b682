"""What keeping freed memory saves a forward on a CPU, and what memory it takes.

    python -m tests.benchmarks.allocator

Two processes hold the same teacher with random weights, and run the same forwards by turns in one thread: one keeps
freed memory (`pipeline.workers.allocator`), the other one does not. Both run them in the main thread, as the local
executor does, or both as a worker of Ray runs them: in another thread, the settings in the environment.
"""

import multiprocessing
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from pipeline.config import TeacherChoice
from pipeline.features import teacher as building
from pipeline.workers.allocator import allocator_environment

CASES = (("timm:tf_efficientnet_lite0", 256), ("dinov3-s", 432), ("dinov3-s", 256))
"""Teacher, and side of its input (pixels)."""
BATCH = 16
TURNS = 5
SPAWN = multiprocessing.get_context("spawn")


def run_forwards(line: Connection, source: str, side: int, *, kept: bool, threaded: bool) -> None:
    """Build the teacher; run one forward whenever it is asked for, and tell its seconds of clock, user and system."""
    torch.set_num_threads(1)
    choice = TeacherChoice(
        name="teacher", source=source, weights="random:0", summary="none" if ":" in source else "own"
    )
    if kept and not threaded:
        running = building.run_teacher(choice, "cpu")
    else:
        with patch.object(building, "keep_freed_memory", lambda: None):
            running = building.run_teacher(choice, "cpu")
    images = torch.rand(BATCH, 3, side, side)
    with ThreadPoolExecutor(1) as thread:
        call: Callable[[], Any] = lambda: running.encode(images)  # noqa: E731
        forward = (lambda: thread.submit(call).result()) if threaded else call
        forward()
        line.send("ready")
        while line.recv():
            before = os.times()
            forward()
            after = os.times()
            line.send([after.elapsed - before.elapsed, after.user - before.user, after.system - before.system])
    line.send(int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]))


def measure(source: str, side: int, *, threaded: bool) -> None:
    """Print the milliseconds of both sides for a view, and their peak memory."""
    lines = []
    for kept in (False, True):
        ours, theirs = SPAWN.Pipe()
        settings = allocator_environment() if kept and threaded else {}
        with patch.dict(os.environ, settings):
            process = SPAWN.Process(
                target=run_forwards,
                args=(theirs, source, side),
                kwargs={"kept": kept, "threaded": threaded},
                daemon=True,
            )
            process.start()
        ours.recv()
        lines.append(ours)
    turns = []
    for _ in range(TURNS):
        for line in lines:
            line.send(True)
            turns.append(line.recv())
    taken = np.median(np.reshape(turns, (TURNS, 2, 3)), axis=0) * 1000 / BATCH
    for line in lines:
        line.send(False)
    before, now = (line.recv() / 2**10 for line in lines)
    texts = (f"{clock:.1f} ms ({user:.1f} user, {system:.1f} system)" for clock, user, system in taken)
    where = "thread" if threaded else "main thread"
    print(f"{source} {side} px, {where}: {' -> '.join(texts)} a view; peak {before:.0f} -> {now:.0f} MiB", flush=True)


def main() -> None:
    """Measure every case in both kinds of thread."""
    for source, side in CASES:
        for threaded in (False, True):
            measure(source, side, threaded=threaded)


if __name__ == "__main__":
    main()
