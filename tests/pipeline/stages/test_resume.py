"""Taking up again: killed at any moment, a run is finished by the same command, to the same bytes."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from stage_runs import StageRun, contents, own, run_stages, write_colours

from pipeline.config import CalibrationConfig, Recipe, ViewsConfig

HERE = Path(__file__).parent
IN_FLIGHT = 2
"""Shards that a worker is at: one is computed while the one before is made durable."""


def killed_runs(where: Path, *moments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Kill runs, and take each up again. Return what the undisturbed run did, and each that was killed."""
    images = write_colours(where / "images", 12)
    command = [sys.executable, str(HERE / "killed_runs.py"), str(images), str(where), *moments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    first, *outcomes = map(json.loads, done.stdout.splitlines())
    assert first["undisturbed"] == 0, done.stderr
    assert not (where / "undisturbed" / "leases").exists()
    return first, outcomes


def shards(begun: list[str]) -> list[str]:
    """Those of the steps that a run began which write a shard."""
    return [step for step in begun if step.startswith(("cut ", "extract "))]


def is_committed(step: str, run: dict[str, Any]) -> bool:
    """Whether all that a step writes was committed when a run had ended."""
    name, view_set, shard = step.split()
    units = {"cut": ["views/{}", "views/{}/detail/quarter-mean-fixed"], "extract": ["teachers/quarter-mean-fixed/{}"]}
    return {f"{unit.format(view_set)}/{int(shard):05d}" for unit in units[name]} <= {*run["committed"]}


def check_killed_runs(where: Path, whole: dict[str, Any], outcomes: list[dict[str, Any]]) -> None:
    """All but the last run on each cache were killed, none left a torn commit, and it became what an undisturbed run
    makes. What was committed was never begun again; what was begun and not committed was no more than is in flight.
    """
    expected = contents(where / "undisturbed")
    for outcome in outcomes:
        runs = outcome["runs"]
        assert [run["ended"] for run in runs] == [*[signal.SIGKILL] * (len(runs) - 1), 0], outcome
        assert not any(run["torn"] for run in runs), outcome
        assert contents(where / outcome["cache"]) == expected, outcome
        begun: list[str] = []
        for before, run in pairwise([{"committed": ()}, *runs]):
            steps = shards(run["begun"])
            assert not any(is_committed(step, before) for step in steps), outcome
            begun += [step for step in steps if step not in begun]
            assert sum(not is_committed(step, run) for step in begun) <= IN_FLIGHT, outcome
        assert begun == shards(whole["begun"]), outcome


def check_killed_at_random(where: Path, count: int) -> None:
    """So many were killed, some of them in every stage."""
    whole, outcomes = killed_runs(where, "random", str(count), "stillhouse")
    check_killed_runs(where, whole, outcomes)
    killed = [run["begun"] for outcome in outcomes for run in outcome["runs"][:-1]]
    assert len(killed) == count
    assert {begun[-1].split()[0] for begun in killed if begun} == {"cut", "observe", "extract", "measure"}


def test_runs_killed_at_twenty_random_moments_are_finished_to_the_same_bytes(tmp_path: Path) -> None:
    check_killed_at_random(tmp_path, 20)


@pytest.mark.slow
def test_runs_killed_at_five_hundred_random_moments_are_finished_to_the_same_bytes(tmp_path: Path) -> None:
    check_killed_at_random(tmp_path, 500)


@pytest.mark.slow
def test_a_run_killed_as_any_object_gets_its_name_is_finished_to_the_same_bytes(tmp_path: Path) -> None:
    whole, outcomes = killed_runs(tmp_path, "renames", "1")
    assert len(outcomes) == whole["moments"]
    check_killed_runs(tmp_path, whole, outcomes)


def test_the_calibration_of_phi_s_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.workers.progress.SECONDS_BETWEEN_LINES", -1.0)
    recipe = Recipe(
        name="shown",
        views=ViewsConfig(low=(128,), high=(), heldout=0.0, tokens_per_shard=600, canvas_tokens=24),
        teachers=(own("teachers.quarter_mean:QuarterMean"),),
    )
    run = run_stages(recipe, write_colours(tmp_path / "images", 20), tmp_path / "cache")
    assert "extract quarter-mean: runs over 20 views to fit PHI-S" in run.said
    shown = [line.split(" views,")[0] for line in capsys.readouterr().err.splitlines() if ", PHI-S: " in line]
    assert shown == [f"extract quarter-mean, PHI-S: {done}/20" for done in (9, 18, 20)]


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
