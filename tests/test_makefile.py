"""The Makefile: names with spaces, a plan that leaves nothing behind, and what is installed."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def make(*arguments: str, temporary: Path) -> str:
    """Run make as a user does, with a folder for temporary files; return what it said."""
    told = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "ARGS")
    own = {name: value for name, value in os.environ.items() if name not in told}
    temporary.mkdir(exist_ok=True)
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=own | {"TMPDIR": str(temporary)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["plain", "with space", "it's & co"])
def test_a_plan_of_the_demo_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    said = make("plan", f"OUT={tmp_path / name}", temporary=tmp_path / "temporary")
    assert "total: " in said
    assert "photographs" not in said
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / name).exists()


def test_out_may_have_a_space(tmp_path: Path) -> None:
    out = tmp_path / "with space"
    cut = ["EXECUTOR=local", "ARGS=--views.draws 1"]
    assert "views: cut 21, rejected 0" in make("views", f"OUT={out}", *cut, temporary=tmp_path / "temporary")
    assert {path.name for path in out.iterdir()} == {"cache", "photographs", "run.json"}
    assert [path.name for path in tmp_path.iterdir() if "space" not in path.name] == ["temporary"]
    assert "views: complete, nothing to do" in make("views", f"OUT={out}", *cut, temporary=tmp_path / "temporary")
    assert "(7.906 MB exist already)" in make("plan", f"OUT={out}", *cut[1:], temporary=tmp_path / "temporary")


@pytest.mark.parametrize("without_cuda", [True, False])
def test_an_installation_takes_pytorch_without_cuda_only_where_asked(without_cuda: bool, tmp_path: Path) -> None:
    asked = ["CPU=1"] if without_cuda else []
    said = make("--dry-run", "--always-make", "install", *asked, temporary=tmp_path / "temporary")
    assert ("--extra-index-url https://download.pytorch.org/whl/cpu --constraint" in said) == without_cuda
    assert ("7 GB" in said) != without_cuda


@pytest.mark.slow
def test_evaluate_cuts_views_runs_the_teacher_and_scores_it_and_then_needs_no_data(tmp_path: Path) -> None:
    random, data, out = np.random.default_rng(0), tmp_path / "some images", tmp_path / "with space"
    for number in range(16):
        name, colours = ("red", (200, 60, 60)) if number % 2 else ("blue", (60, 60, 200))
        path = data / ("val" if number > 11 else "train") / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.array(colours) + random.integers(-40, 40, (80, 100, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    teacher = ["evaluate", f"OUT={out}", "TEACHER=teachers.quarter_mean:QuarterMean", "EXECUTOR=local", "TASKS=knn"]
    teacher, seen = [*teacher, "ARGS=--knn.k 3"], ["RESOLUTIONS=64 96", f"DATA={data}"]
    make("labels", f"DATA={data}", f"TO={tmp_path / 'l.csv'}", temporary=tmp_path / "temporary")
    said = make(*teacher, *seen, f"LABELS={tmp_path / 'l.csv'}", temporary=tmp_path / "temporary")
    assert said.count("1.0000*") == 2
    with_folders = make(*teacher, "LABELS=folders", temporary=tmp_path / "temporary")
    assert "views" not in with_folders.partition("\n")[0]
    stored = json.loads((out / "quarter-mean" / "evaluation.json").read_text())["scores"]
    assert [(score["view_set"], score["scores"]["accuracy"]) for score in stored] == [("low-64", 1), ("low-96", 1)] * 2
