"""A signal stops a run at the end of a step, with a checkpoint, one message and its status; the run then resumes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from own_processes import losses

from storage_schemas.cache import Cache
from trainer.data.source import open_source
from trainer.run.checkpoint import steps_in_checkpoint
from trainer.run.fit import fit
from trainer.run.train import train
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder, read_json
from trainer.settings.config import TrainRecipe
from trainer.stopping import SIGNALS, Stopped, StopRequest

Recipes = Callable[..., TrainRecipe]
STEPS = 6
RUNNING: dict[str, Any] = {"evaluate_every": 2, "checkpoint_every": 100}
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
"""What a job step of Slurm with one task finds in its environment."""
COMMAND = (
    "train --recipe demo --name test_vit --student test_vit --steps 5000 --optimiser.warmup 0 --heads.width 32 "
    "--data.batch-low 4 "
    "--data.batch-high 2 --running.loggers csv --running.log-every 1 --running.checkpoint-every 100000 "
    "--running.accelerator cpu"
)


class Signal(Callback):
    """Sends a signal to this process at a moment of a step."""

    def __init__(self, name: str, moment: str, step: int) -> None:
        self.number, self.moment, self.step, self.sent = signal.Signals[f"SIG{name}"], moment, step, False

    def send(self, moment: str, step: int) -> None:
        if (moment, step, self.sent) == (self.moment, self.step, False):
            self.sent = True
            os.kill(os.getpid(), self.number)

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.send("start", trainer.global_step)
        model = module.finished
        model.register_forward_hook(lambda *_: None if model.training else self.send("evaluation", trainer.global_step))

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.send("batch", trainer.global_step)

    def on_after_backward(self, trainer: Trainer, _: LightningModule) -> None:
        self.send("backward", trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.send("batch end", trainer.global_step)

    def on_save_checkpoint(self, trainer: Trainer, *_: Any) -> None:
        self.send("checkpoint", trainer.global_step)


def run_until_signal(recipe: TrainRecipe, cache: Cache, folder: Path, sender: Signal) -> Stopped:
    assert threading.current_thread() is threading.main_thread()
    run = TrainingRun(recipe=recipe, source=open_source(cache), folder=RunFolder(path=folder))
    request = StopRequest()
    before = {name: signal.getsignal(signal.Signals[f"SIG{name}"]) for name in SIGNALS}
    with pytest.raises(Stopped) as stopped, request.on_signals(SIGNALS):
        fit(run, lambda _: None, [sender], request)
    assert {name: signal.getsignal(signal.Signals[f"SIG{name}"]) for name in SIGNALS} == before
    return stopped.value


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C is not ignored, as it is where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def undisturbed(full_cache: Cache, tmp_path_factory: pytest.TempPathFactory, recipe_of: Recipes) -> RunFolder:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return train(recipe_of(steps=STEPS, running=RUNNING), full_cache.store.uri, folder, lambda _: None)


MOMENTS = [
    ("start", 0, 1, {}),
    ("batch", 0, 1, {}),
    ("batch", 2, 3, {}),
    ("backward", 3, 4, {}),
    ("batch end", 2, 3, {}),
    ("evaluation", 2, 2, {}),
    ("evaluation", 4, 4, {"patience": 9}),
    ("evaluation", STEPS, STEPS, {}),
    ("checkpoint", STEPS, STEPS, {}),
    ("batch", STEPS - 1, STEPS, {}),
]
"""Moment and step of the signal, steps behind the checkpoint that is then left, changes of the recipe."""
FEW = {("TERM", "batch", 2), ("INT", "evaluation", 2), ("USR1", "evaluation", STEPS), ("USR2", "backward", 3)}
CASES = [
    pytest.param(name, moment, step, kept, changes, marks=[] if (name, moment, step) in FEW else [pytest.mark.slow])
    for name in SIGNALS
    for moment, step, kept, changes in MOMENTS
]


@pytest.mark.parametrize(("name", "moment", "step", "kept", "changes"), CASES)
def test_a_signal_at_any_moment_leaves_a_checkpoint_of_a_whole_step_and_the_run_resumes_to_the_same_bytes(
    full_cache: Cache,
    tmp_path: Path,
    recipe_of: Recipes,
    undisturbed: RunFolder,
    name: str,
    moment: str,
    step: int,
    kept: int,
    changes: Mapping[str, Any],
) -> None:
    recipe, run = recipe_of(steps=STEPS, running=RUNNING, **changes), RunFolder(path=tmp_path / "run")
    stopped = run_until_signal(recipe, full_cache, run.path, Signal(name, moment, step))
    shown = "Ctrl-C" if name == "INT" else f"SIG{name}"
    assert str(stopped) == f"stopped by {shown} after step {kept} of {STEPS}, with a checkpoint"
    assert stopped.status == 128 + signal.Signals[f"SIG{name}"]
    assert steps_in_checkpoint(run.checkpoint) == kept
    assert not run.card.exists()
    train(recipe, full_cache.store.uri, run.path, lambda _: None)
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()
    assert losses(run) == losses(undisturbed)
    assert read_json(run.metrics)["evaluations"] == read_json(undisturbed.metrics)["evaluations"]


@pytest.mark.parametrize("name", ["TERM", pytest.param("INT", marks=pytest.mark.slow)])
def test_a_signal_during_the_first_evaluation_stops_before_the_first_step(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, name: str
) -> None:
    recipe, run = recipe_of(steps=STEPS, running=RUNNING), RunFolder(path=tmp_path / "run")
    # the hook that sends it is not yet there as the first evaluation begins: the signal comes before it
    request = StopRequest()
    request.received = signal.Signals[f"SIG{name}"]
    source = open_source(full_cache)
    with pytest.raises(Stopped, match=r"after step 0 of 6, before the first checkpoint"):
        fit(TrainingRun(recipe=recipe, source=source, folder=run), lambda _: None, request=request)
    assert read_json(run.metrics)["evaluations"] == []


def test_a_second_ctrl_c_stops_at_once_and_other_signals_may_come_twice() -> None:
    request = StopRequest()
    with request.on_signals(SIGNALS):
        request.deferred = True
        for name in ("TERM", "TERM", "USR1"):
            os.kill(os.getpid(), signal.Signals[f"SIG{name}"])
        assert request.received == signal.SIGTERM
        with pytest.raises(Stopped, match=r"^stopped by Ctrl-C$"):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_the_program_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest().on_signals(SIGNALS):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def command(cache: Cache, runs: Path, more: str = "", package: str = "trainer") -> list[str]:
    return [
        sys.executable,
        "-m",
        package,
        *COMMAND.split(),
        "--cache",
        cache.store.uri,
        "--runs",
        str(runs),
        *more.split(),
    ]


@contextmanager
def program(arguments: list[str], runs: Path, environment: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A program in a process group of its own, once it has trained for some steps."""
    runs.mkdir(exist_ok=True)
    history = runs / "test_vit" / "history.csv"
    with (runs / "out").open("w") as out, (runs / "err").open("w") as errors:
        going = subprocess.Popen(
            arguments, stdout=out, stderr=errors, start_new_session=True, env={**os.environ, **(environment or {})}
        )
    try:
        until = time.monotonic() + 240
        while not history.exists() or len(history.read_text().splitlines()) < 5:
            assert going.poll() is None, (runs / "err").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield going
    finally:
        if going.poll() is None:
            os.killpg(going.pid, signal.SIGKILL)
        going.wait()


def require_stopped(runs: Path, name: str) -> None:
    """The program said one thing, after its progress, and left a checkpoint of its last step."""
    run = RunFolder(path=runs / "test_vit")
    *_, last = (runs / "err").read_text().rstrip("\n").split("\n")
    steps = steps_in_checkpoint(run.checkpoint)
    assert 0 < steps < 5000
    assert last == (
        f"stopped by {name} after step {steps} of 5000, with a checkpoint (run the same command again: it resumes)"
    )
    assert "Traceback" not in (runs / "err").read_text()
    assert len(losses(run)) == steps
    files = {"history.csv", "last.ckpt", "metrics.json", "run.json", "sessions.json"}
    assert {path.name for path in run.path.iterdir()} == files


def test_in_a_job_of_slurm_usr1_stops_with_our_checkpoint_and_the_job_is_not_requeued_by_us(
    full_cache: Cache, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f"#!/bin/sh\ntouch {tmp_path / 'requeued'}\n")
    scontrol.chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    with program(command(full_cache, tmp_path / "runs"), tmp_path / "runs", SLURM | path) as going:
        going.send_signal(signal.SIGUSR1)
        assert going.wait(60) == 128 + signal.SIGUSR1
    require_stopped(tmp_path / "runs", "SIGUSR1")
    assert not (tmp_path / "requeued").exists()


def test_a_checkpoint_that_lightning_left_in_a_job_of_slurm_is_not_resumed_from(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, undisturbed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    run = RunFolder(path=tmp_path / "run")
    run.path.mkdir()
    (run.path / "hpc_ckpt_1.ckpt").write_bytes(undisturbed.checkpoint.read_bytes())
    train(recipe_of(steps=STEPS, running=RUNNING), full_cache.store.uri, run.path, lambda _: None)
    assert losses(run) == losses(undisturbed)
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()


@pytest.mark.parametrize("name", ["INT", pytest.param("TERM", marks=pytest.mark.slow)])
def test_a_signal_to_a_run_and_its_readers_stops_the_run_with_a_checkpoint(
    full_cache: Cache, tmp_path: Path, name: str
) -> None:
    with program(command(full_cache, tmp_path, "--running.workers 2"), tmp_path) as going:
        os.killpg(going.pid, signal.Signals[f"SIG{name}"])
        assert going.wait(60) == 128 + signal.Signals[f"SIG{name}"]
    require_stopped(tmp_path, "Ctrl-C" if name == "INT" else f"SIG{name}")


def trainers(runs: Path) -> dict[int, int]:
    """Process IDs of the trainers of a folder of runs, by rank."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue  # it has ended, or belongs to another user
        if words[1:2] == [b"-m"] and words[3:4] == [b"train"] and str(runs).encode() in words:
            environment = dict(variable.partition(b"=")[::2] for variable in variables)
            found[int(environment.get(b"RANK", environment.get(b"LOCAL_RANK", b"0")))] = int(process.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("target", ["first", "second", "group"])
@pytest.mark.parametrize("name", ["TERM", "INT", "USR1"])
def test_a_signal_to_any_of_two_processes_stops_both_after_the_same_step(
    full_cache: Cache, tmp_path: Path, name: str, target: str
) -> None:
    number = signal.Signals[f"SIG{name}"]
    with program(command(full_cache, tmp_path, "--running.devices 2 --running.workers 1"), tmp_path) as going:
        if target == "group":
            os.killpg(going.pid, number)
        else:
            os.kill(going.pid if target == "first" else trainers(tmp_path)[1], number)
        assert going.wait(90) == 128 + number
    require_stopped(tmp_path, "Ctrl-C" if name == "INT" else f"SIG{name}")
    until = time.monotonic() + 30
    while trainers(tmp_path):  # the process that Lightning started ends about when the first one does
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_signal_before_the_first_step_ends_in_one_message(full_cache: Cache, tmp_path: Path, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    for seconds in (1.5, 3.0, 5.0):
        going = subprocess.Popen(command(full_cache, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(seconds)
        going.send_signal(number)
        errors = going.communicate(timeout=60)[1].decode()
        assert going.returncode == 128 + number
        assert "Traceback" not in errors
        assert errors.splitlines()[-1].startswith(f"stopped by {'Ctrl-C' if name == 'INT' else f'SIG{name}'}")
