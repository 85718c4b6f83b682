"""What looking at encodings adds to `stats`: against the moments of the same tokens, by turns, on the processor's time.

    python -m tests.benchmarks.rounding

The pass over a cache reads and checks the tokens besides, so the share of it is smaller.
"""

import time
from collections.abc import Callable
from typing import get_args

import numpy as np
import torch

from pipeline.phi_s.observe import observe
from pipeline.stats.quantization import observe_rounding
from storage_schemas.format.encodings import INT8_STEP, Coding, Encoding, as_numbers, as_stored

CHANNELS = (96, 384, 768, 1152, 4096)
TOKENS = 8192
ROUNDS = 9


def seconds(call: Callable[[], object]) -> float:
    """Return the processor's time that a call takes."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(channels: int, encoding: Encoding) -> None:
    """Print both sides for a number, and their ratio."""
    coding = Coding(encoding=encoding, step=INT8_STEP if encoding == "int8" else 0.0)
    stored = as_stored(np.random.default_rng(0).standard_normal((TOKENS, channels), dtype=np.float32), coding)
    sides = (lambda: observe(torch.from_numpy(as_numbers(stored, coding))), lambda: observe_rounding(stored, coding))
    rounds = [[seconds(side) for side in sides] for _ in range(ROUNDS)]
    moments, rounding = (min(one) * 1e9 / stored.size for one in zip(*rounds, strict=True))
    print(f"{channels:>6}  {encoding:<8}  {moments:6.2f} ns  {rounding:5.2f} ns  {rounding / moments:.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("channels  encoding  moments  rounding  ratio (per number)")
    for count in CHANNELS:
        for one in get_args(Encoding):
            measure(count, one)
