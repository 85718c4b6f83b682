"""Whatever is done to a cache, in whatever order, it has the objects that a model predicts."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EVERYTHING = (
    *("cut", "images", "views", "kills", "disk failures", "verify", "verify of damage", "inspect"),
    *(f"{do} {name}" for do in ("extract", "measure") for name in ("canvas", "direct", "fixed")),
    *("gc", "gc --delete", "refusals", "rows", "rows that are not there", "rows that cannot be read for damage"),
    *(f"damaged: {kind}" for kind in ("cut", "empty", "flip", "lose", "lose a record", "swap")),
    *("repaired as told", "repaired from a copy", "refused for damage", "teachers read by zarr-python"),
)


def ran(where: Path, sequences: int, steps: int, seed: int) -> dict[str, int]:
    """Run the machine, and return how often each thing happened."""
    command = [sys.executable, str(HERE / "cache_machine.py"), str(where), *map(str, (sequences, steps, seed))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    print(done.stdout)
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts


def test_a_cache_is_what_a_model_of_it_says_whatever_is_done_to_it(tmp_path: Path) -> None:
    counts = ran(tmp_path, sequences=6, steps=12, seed=0)
    assert counts["sequences"] >= 6
    assert counts["steps"] >= 40


@pytest.mark.slow
def test_a_cache_is_what_a_model_of_it_says_after_thousands_of_steps(tmp_path: Path) -> None:
    counts = Counter[str]()
    for seed in (1, 2, 3, 4):
        counts.update(ran(tmp_path / str(seed), sequences=50, steps=30, seed=seed))
    assert counts["sequences"] >= 200
    assert not [name for name in EVERYTHING if not counts[name]], "everything came about"
