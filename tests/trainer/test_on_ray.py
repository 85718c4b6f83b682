"""Training on Ray is the run that two processes make by themselves; one that is lost ends it, and it goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from own_processes import losses

from storage_schemas.cache import Cache
from trainer.run.checkpoint import steps_in_checkpoint
from trainer.run_folder import RunFolder

pytest.importorskip("ray")

COMMAND = (
    "train --recipe demo --name test_vit --student test_vit --steps 60 --optimiser.warmup 0 --heads.width 32 "
    "--data.batch-low 4 "
    "--data.batch-high 2 --running.loggers csv --running.log-every 1 --running.checkpoint-every 10"
)


def command(package: str, cache: Cache, runs: Path, more: str) -> list[str]:
    places = ["--cache", cache.store.uri, "--runs", str(runs)]
    return [sys.executable, "-m", package, *COMMAND.split(), *places, *more.split()]


def process_of(runs: Path, rank: int) -> int:
    """Return the trainer of that rank, by what Linux knows of it."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, told = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue  # it is gone, or not ours
        trains_there = words[1:4] == [b"-m", b"trainer", b"train"] and str(runs).encode() in words
        if trains_there and f"RANK={rank}".encode() in told:
            return int(process.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_run_on_ray_that_lost_a_process_says_so_once_and_goes_on_to_the_losses_of_two_processes(
    full_cache: Cache, tmp_path: Path
) -> None:
    plain = command("trainer", full_cache, tmp_path / "plain", "--running.devices 2 --running.accelerator cpu")
    subprocess.run(plain, check=True, capture_output=True, timeout=900)
    on_ray, run = (
        command("pipeline", full_cache, tmp_path / "ray", "--run.workers 2"),
        RunFolder(path=tmp_path / "ray" / "test_vit"),
    )
    with subprocess.Popen(on_ray, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as going:
        until = time.monotonic() + 300
        while not run.checkpoint.exists():
            assert going.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        os.kill(process_of(tmp_path / "ray", 1), signal.SIGKILL)
        _, said = going.communicate(timeout=300)
    assert going.returncode == 2
    assert "Traceback" not in said
    message = said[said.index("error: ") :]
    assert message.startswith("error: training cannot be used:\n  process 2 of 2 on ")
    assert message.endswith(
        ": was ended by SIGKILL (run the same command again: it resumes after the last checkpoint)\n"
    )
    assert not run.card.exists()
    done = subprocess.run(on_ray, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert "train: resuming after step " in done.stdout
    assert done.stdout.count("step 60: held-out fidelity") == 1
    assert losses(run) == losses(RunFolder(path=tmp_path / "plain" / "test_vit"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("stopped", ["trainer", "command"])
def test_a_run_on_ray_that_is_stopped_leaves_a_checkpoint_and_is_not_taken_for_finished(
    full_cache: Cache, tmp_path: Path, stopped: str
) -> None:
    run = RunFolder(path=tmp_path / "test_vit")
    endless = command("pipeline", full_cache, tmp_path, "--run.workers 2 --steps 5000 --running.checkpoint-every 9999")
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as going:
        until = time.monotonic() + 300
        while not run.history.exists() or len(run.history.read_text().splitlines()) < 5:
            assert going.poll() is None, going.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(going.pid if stopped == "command" else process_of(tmp_path, 1), signal.SIGTERM)
        _, said = going.communicate(timeout=300)
    assert "Traceback" not in said
    steps = len(losses(run))
    assert steps_in_checkpoint(run.checkpoint) == steps
    assert f"stopped by SIGTERM after step {steps} of 5000, with a checkpoint" in said
    if stopped == "command":
        assert going.returncode == 128 + signal.SIGTERM
    else:
        assert going.returncode == 2
        message = said[said.index("error: ") :]
        assert message.startswith("error: training cannot be used:\n  process 1 of 2 on ")
        assert message.endswith(
            ": was stopped by SIGTERM (run the same command again: it resumes after the last checkpoint)\n"
        )
