"""How fast moments are taken, against the matrix product of the same rows; and the memory that they take.

    python -m tests.benchmarks.moments

Rate: rows are measured on one thread, and multiplied (Xᵀ X) by the BLAS, in float32 and in float64; all by turns, on
the processor's time, which leaves out what others took; the best of several rounds of each side, since what else the
machine does only ever slows them. A row of C channels counts as 2 C² operations on every side.
Memory: the highest resident set of a process that measures some rows, and of one that measures a hundred times as many.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

from pipeline.phi_s.observe import observe, observe_all

CHANNELS = (64, 192, 384, 768, 1024, 1152, 1280, 1408, 1536, 4096)
ROUNDS = 5
OPERATIONS = 3e10
"""Of a round of each side, so that none is too short to time."""
BLOCK = 2048


def seconds(call: Callable[[], object]) -> float:
    """Return the processor's time that a call takes."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure_rate(channels: int) -> None:
    """Print the rates, and their ratios."""
    count = int(min(max(OPERATIONS / (2 * channels**2), 4096), 2**28 / channels))
    rows = torch.randn(count, channels)
    exact = rows.double()
    sides = (lambda: observe(rows), lambda: rows.T @ rows, lambda: exact.T @ exact)
    taken = [[seconds(side) for side in sides] for _ in range(ROUNDS)]
    ours, single, double = map(min, zip(*taken, strict=True))
    rate = 2e-9 * count * channels**2 / ours
    ratios = f"{single / ours:.2f} of float32, {double / ours:.2f} of float64"
    print(f"{channels} channels, {count} rows: {rate:.1f} GFLOP/s, {ratios}", flush=True)


def measure_memory() -> None:
    """Print the highest resident set of a process that measures rows of 768 channels, and a hundred times as many."""
    for count in (10, 1000):
        command = [sys.executable, "-m", "tests.benchmarks.moments", str(count)]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(f"{count * BLOCK} rows of 768: {int(peak) / 2**10:.0f} MiB", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Measure both; or, given a number of blocks, measure their rows and print the peak (KiB)."""
    torch.set_num_threads(1)
    if arguments:
        block = torch.randn(BLOCK, 768)
        observe_all(block for _ in range(int(arguments[0])))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    measure_memory()
    for channels in CHANNELS:
        measure_rate(channels)


if __name__ == "__main__":
    main(sys.argv[1:])
