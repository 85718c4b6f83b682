"""Ctrl-C and SIGTERM, in every stage that writes: one line, the right status, and the next run goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from interrupted_runs import SIGNALS, commands
from stage_runs import contents, write_colours

from pipeline.__main__ import main

HERE = Path(__file__).parent
STAGES = ("views", "extract", "stats", "export")
LINES = {
    name: f"error: interrupted by {said}: what is committed is kept, and the same command does the rest\n"
    for name, said in (("SIGINT", "Ctrl-C"), ("SIGTERM", "SIGTERM"))
}
STATUS = {"SIGINT": 130, "SIGTERM": 143}


def check_interrupted(where: Path, count: int) -> None:
    """Interrupt each stage so often by each signal, in one process; the caches become what undisturbed runs make."""
    images = write_colours(where / "images", 12)
    command = [sys.executable, str(HERE / "interrupted_runs.py"), str(images), str(where), str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    interrupted = Counter[tuple[str, str]]()
    for cache, stage, signalled, status, errors in map(json.loads, done.stdout.splitlines()):
        if status:
            assert signalled, (cache, stage, status, errors)
            assert (status, errors) == (STATUS[signalled], LINES[signalled]), (cache, stage)
            interrupted[stage, signalled] += 1
        else:  # it was not sent a signal, or had ended before
            assert not errors, (cache, stage)
    assert set(interrupted) == {(stage, signalled) for stage in STAGES for signalled in SIGNALS}
    for signalled in SIGNALS:
        for ending in ("", "-export"):
            assert contents(where / f"{signalled}{ending}") == contents(where / f"undisturbed{ending}")
            assert not (where / f"{signalled}{ending}" / "leases").exists()


def test_stages_interrupted_at_sixteen_moments_end_in_one_line_and_are_finished_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    check_interrupted(tmp_path, 2)


@pytest.mark.slow
def test_stages_interrupted_at_many_moments_end_in_one_line_and_are_finished_to_the_same_bytes(tmp_path: Path) -> None:
    check_interrupted(tmp_path, 25)


def interrupt_over_ray(where: Path, stage: str, signalled: str) -> None:
    """Interrupt a stage on a Ray of its own when it has committed its first shard; let the same command finish it."""
    images, cache = write_colours(where / "images", 40), where / "cache"
    for before, command in commands(images, cache).items():
        over_ray = [word if word != "local" else "ray" for word in command] + ["--run.workers", "1"]
        if before == stage:
            break
        assert main(command) == 0
    written = {"views": cache / "tables/shards/views", "extract": cache / "tables/shards/teachers"}
    first, run = written.get(stage, where / "figures.json"), [*over_ray, "--run.report", str(where / "figures.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *run], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
    ) as process:
        while process.poll() is None and not first.exists():
            time.sleep(0.01)
        process.send_signal(getattr(signal, signalled))
        _, errors = process.communicate()
    # on a busy machine a stage takes longer than the ten seconds after which it says how far it is
    said = "".join(line for line in errors.decode().splitlines(keepends=True) if " views/s" not in line)
    assert (process.returncode, said) == (STATUS[signalled], LINES[signalled])
    assert not (cache / "leases").exists()
    assert main(command) == 0


def test_a_signal_to_a_run_over_ray_ends_it_in_one_line(tmp_path: Path) -> None:
    interrupt_over_ray(tmp_path, "extract", "SIGTERM")


@pytest.mark.slow
@pytest.mark.parametrize("signalled", SIGNALS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_to_any_stage_over_ray_ends_it_in_one_line(stage: str, signalled: str, tmp_path: Path) -> None:
    interrupt_over_ray(tmp_path, stage, signalled)


def test_a_command_that_only_reads_says_no_more_than_what_ended_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("pipeline.__main__.COMMANDS", {"inspect": lambda _: os.kill(os.getpid(), signal.SIGTERM)})
    assert main(["inspect"]) == STATUS["SIGTERM"]
    assert capsys.readouterr().err == "error: interrupted by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) is before
