"""The Makefile: names with spaces, a plan that leaves nothing behind, and what is installed."""

import os
import subprocess
from pathlib import Path

import pytest

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
