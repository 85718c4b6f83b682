"""Taking up again: killed at any moment, a run is finished by the same command, to the same bytes."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stage_runs import StageRun, contents, own, run_stages, write_colours

from pipeline.config import CalibrationConfig, Recipe, ViewsConfig

HERE = Path(__file__).parent


def killed_runs(where: Path, every: int) -> list[dict[str, Any]]:
    """Kill runs at every so many objects and take each up again."""
    images = write_colours(where / "images", 16)
    command = [sys.executable, str(HERE / "killed_runs.py"), str(images), str(where), str(every)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    first, *outcomes = map(json.loads, done.stdout.splitlines())
    assert first["undisturbed"] == 0, done.stderr
    assert len(outcomes) == -(-first["moments"] // every)
    return outcomes


def check_killed_runs(where: Path, every: int) -> None:
    """Each was killed, left no torn commit, and became what an undisturbed run is."""
    outcomes = killed_runs(where, every)
    expected = contents(where / "undisturbed")
    for outcome in outcomes:
        assert (outcome["killed"], outcome["torn"], outcome["resumed"]) == (signal.SIGKILL, 0, 0), outcome
        assert contents(where / outcome["cache"]) == expected, outcome


def test_a_run_killed_at_any_of_several_moments_is_finished_to_the_same_bytes(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, every=13)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_is_finished_to_the_same_bytes(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, every=1)


def test_a_frozen_map_is_never_fitted_again(tmp_path: Path) -> None:
    recipe = Recipe(
        name="frozen",
        views=ViewsConfig(low=(128,), high=(), heldout=0.2, tokens_per_shard=600, canvas_tokens=24),
        teachers=(own("teachers.quarter_mean:QuarterMean"),),
    )
    whole = run_stages(recipe, write_colours(tmp_path / "images", 20), tmp_path / "cache")
    before = contents(whole.where)
    (whole.where / "tables/shards/teachers/quarter-mean/low-128/00001.parquet").unlink()
    rougher = replace(recipe, calibration=CalibrationConfig(views=1, tokens_per_channel=5))
    again = run_stages(rougher, whole.data, whole.where)
    assert contents(whole.where) == before
    assert not any("PHI-S fitted" in line for line in again.said)
    assert "extract quarter-mean: 9 of 20 views to do in 1 shards" in again.said


def test_a_second_run_writes_nothing_and_says_so(tiny_run: StageRun) -> None:
    def written() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tiny_run.where.rglob("*")}

    before = written()
    again = run_stages(tiny_run.recipe, tiny_run.data, tiny_run.where)
    assert written() == before
    said = [line for line in again.said if "RANDOM WEIGHTS" not in line]
    sizes = [line.rpartition("(")[2] for line in said]
    assert said == [
        f"views: complete, nothing to do ({sizes[0]}",
        f"extract dinov3: complete, nothing to do ({sizes[1]}",
        f"extract siglip2: complete, nothing to do ({sizes[2]}",
        f"extract sam3: complete, nothing to do ({sizes[3]}",
        *(
            f"stats {name}: complete, nothing to do (60 views measured)"
            for name in ("dinov3", "dinov3-block0", "sam3", "sam3-block0", "siglip2", "siglip2-block0")
        ),
    ]
    assert sizes[0].startswith("60 views: high-256 ")
    assert all(size.startswith("60 views, ") for size in sizes[1:4])


def test_a_finished_cache_needs_its_images_no_more(tiny_run: StageRun) -> None:
    again = run_stages(tiny_run.recipe, None, tiny_run.where)
    assert again.said[0].startswith("views: complete, nothing to do")
