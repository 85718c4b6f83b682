"""`make demo`, exactly as a user types it; then another student from its cache, with everything else taken away."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr

ROOT = Path(__file__).parents[1]
TEACHERS = ("dinov3", "siglip2", "sam3")
SETS = ("high-256", "low-128", "low-192")
MINUTES = 60

BLOCKED = """
import importlib.metadata
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())

# libraries also ask which distributions are installed, and import what they find
installed = importlib.metadata.distribution

def distribution(name):
    if name in {blocked!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return installed(name)

importlib.metadata.distribution = distribution
"""
"""Run as `sitecustomize`: the packages named are as if they had never been installed."""


def make(*arguments: str, out: Path, extra_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    # the tests may have been begun by make: what it was told is not for this one
    told = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "ARGS")
    own = {name: value for name, value in os.environ.items() if name not in told}
    environment = own | ({"PYTHONPATH": str(extra_path)} if extra_path else {})
    command = ["make", "--no-print-directory", *arguments, f"OUT={out}"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=10 * MINUTES, check=False
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(out: Path) -> str:
    run = make("demo", out=out)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def metrics(out: Path, student: str) -> dict:
    return json.loads((out / "runs" / student / "metrics.json").read_text())


@pytest.mark.timeout(15 * MINUTES)
def test_the_demo_ends_with_a_table_of_every_teacher_and_the_path_of_a_page(first: str, out: Path) -> None:
    table = first[first.rindex("teacher ") :] if "teacher " in first else ""
    assert all(teacher in table for teacher in TEACHERS), first
    assert str(out / "report.html") in table
    assert (out / "report.html").stat().st_size > 10_000


def test_the_demo_says_that_its_weights_are_random(first: str) -> None:
    assert first.count("RANDOM WEIGHTS") >= len(TEACHERS)


@pytest.mark.usefixtures("first")
@pytest.mark.timeout(10 * MINUTES)
def test_a_second_demo_recomputes_nothing_and_says_so(out: Path) -> None:
    before = snapshot(out / "cache"), snapshot(out / "runs")
    again = make("demo", out=out)
    assert again.returncode == 0, again.stderr
    said = [line.split(":")[0] for line in again.stdout.splitlines() if "nothing to do" in line]
    stages = [
        "views",
        *(f"extract {name}" for name in TEACHERS),
        *(f"stats {name}" for name in sorted(TEACHERS)),
        "train",
    ]
    assert said == stages, again.stdout
    assert (snapshot(out / "cache"), snapshot(out / "runs")) == before


@pytest.mark.usefixtures("first")
def test_plain_zarr_finds_the_arrays_by_the_names_of_the_design(out: Path) -> None:
    group = zarr.open_group(out / "cache" / "features.zarr", mode="r", zarr_format=3)
    for view_set in SETS:
        assert group[f"views/{view_set}/pixels"].shards is not None
        for teacher in TEACHERS:
            spatial = group[f"teachers/{teacher}/{view_set}/spatial"]
            assert spatial.shards[0] > spatial.chunks[0] == 1
            assert spatial.shape[0] == group[f"views/{view_set}/pixels"].shape[0]
    assert "summary" not in group["teachers/sam3/low-128"]


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("teacher", TEACHERS)
def test_stored_features_have_mean_zero_and_variance_one_over_all_rows(out: Path, teacher: str) -> None:
    group = zarr.open_group(out / "cache" / "features.zarr", mode="r", zarr_format=3)
    rows = [group[f"teachers/{teacher}/{view_set}/spatial"][...].astype(np.float64) for view_set in SETS]
    tokens = np.concatenate([one.reshape(-1, one.shape[-1]) for one in rows])
    assert np.isfinite(tokens).all()
    assert np.abs(tokens.mean(axis=0)).mean() < 0.1
    assert abs(tokens.var(axis=0).mean() - 1) < 0.05


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_student_comes_closer_to_every_teacher_on_held_out_views(out: Path, teacher: str) -> None:
    [run] = (out / "runs").iterdir()
    evaluations = metrics(out, run.name)["evaluations"]
    start, end = (evaluations[index]["teachers"][teacher]["fidelity"] for index in (0, -1))
    assert end > start
    assert end > 1


@pytest.mark.usefixtures("first")
@pytest.mark.timeout(10 * MINUTES)
def test_another_student_needs_no_images_no_weights_no_ray_no_transformers_and_no_teacher(
    out: Path, tmp_path: Path
) -> None:
    shutil.rmtree(out / "photographs")
    absent = {"ray", "transformers", "teachers", "pipeline", "skimage"}
    (tmp_path / "sitecustomize.py").write_text(BLOCKED.format(blocked=absent))
    settings = "ARGS=--steps 4 --running.evaluate-every 0"
    run = make("train", "STUDENT=resnet10t", settings, out=out, extra_path=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (out / "runs" / "resnet10t" / "student.safetensors").is_file()
    blocked = make("stats", out=out, extra_path=tmp_path)
    assert "No module named 'pipeline" in blocked.stderr, "the block did not bite"
