"""An extension that is killed leaves what was there readable and sound, and is finished by the same command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from extensions import grow
from killed_extensions import SMALL, TURNING_POINTS
from stage_runs import contents, write_colours

HERE = Path(__file__).parent


def check_killed_extensions(where: Path, every: int) -> None:
    """Each was killed, lost nothing, was sound as far as it went, and became what an undisturbed one is."""
    made = grow(SMALL, write_colours(where / "images", 10), where / "made")
    more = write_colours(where / "more", 14)
    command = [sys.executable, str(HERE / "killed_extensions.py"), *map(str, (made.where, more, where, every))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    first, *outcomes = map(json.loads, done.stdout.splitlines())
    assert first["undisturbed"] == 0, done.stderr
    assert len(outcomes) == len({*TURNING_POINTS, *range(1, first["moments"] + 1, every)})
    expected = contents(where / "undisturbed")
    for outcome in outcomes:
        cache = outcome.pop("cache")
        assert outcome == {"killed": signal.SIGKILL, "lost": [], "torn": 0, "wrong": 0, "resumed": 0}, cache
        assert contents(where / cache) == expected, cache


def test_an_extension_killed_at_any_of_several_moments_is_finished_to_the_same_bytes(tmp_path: Path) -> None:
    check_killed_extensions(tmp_path, every=29)


@pytest.mark.slow
def test_an_extension_killed_at_any_moment_is_finished_to_the_same_bytes(tmp_path: Path) -> None:
    check_killed_extensions(tmp_path, every=1)
