"""A Ray that cannot start here: one message with status 2, whatever in the environment is the cause."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
import ray

from pipeline.config import RunConfig
from pipeline.workers import ray_cluster
from storage_schemas.format.errors import SettingError

LONG = "x" * 90


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_whose_path_is_too_long_is_named(variable: str, tmp_path: Path) -> None:
    folder = tmp_path / LONG
    folder.mkdir()
    script = (
        "from pipeline.config import RunConfig\n"
        "from pipeline.workers.ray_cluster import open_ray\n"
        "from storage_schemas.command_line import run_command\n"
        "import sys\n"
        "sys.exit(run_command({'open': lambda _: open_ray(RunConfig(), 1)}, '', ['open'], package='pipeline'))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment | {variable: str(folder)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        f"error: ray cluster cannot be used:\n  {folder}: is too long a path for Ray, whose sockets may have names of "
        "107 bytes (set RAY_TMPDIR to a shorter path, such as /tmp)\n",
    )


@pytest.mark.parametrize("error", [ValueError("no room in /dev/shm"), RuntimeError(), PermissionError(13, "denied")])
def test_whatever_keeps_a_ray_from_starting_is_one_message(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(SettingError) as caught:
        ray_cluster.open_ray(RunConfig(), 1)
    said = str(caught.value)
    assert said.startswith("ray cluster cannot be used:\n  ray: cannot start on this machine: ")
    assert said.endswith("(without Ray: EXECUTOR=local, or --run.executor local)")
    assert (str(error) or "RuntimeError") in said


def test_an_address_that_is_empty_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(ray, "init", lambda **settings: asked.append(settings["address"]))
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1}}])
    ray_cluster.open_ray(RunConfig(), 1)
    assert asked == ["local"]
