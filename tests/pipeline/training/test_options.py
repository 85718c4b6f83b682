"""The command that trains on Ray keeps its own settings and passes on all others; each process learns its rank."""

import os
import signal
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.training.options import TrainingWorkersConfig, train_options, worker_settings
from pipeline.training.process import TRAINER, Launch, Output, TrainingProcess, environment
from pipeline.workers.installation import code_sha256
from storage_schemas.format.errors import SettingError


def test_settings_that_are_not_its_own_go_on_to_the_trainer_as_they_are() -> None:
    given = (
        "--recipe small --run.workers 4 --runs r --run.gpus 1 --optimiser.lr 0.1 --running.workers 2 --heads.width=8"
    )
    options = train_options(given.split())
    assert options.run == TrainingWorkersConfig(workers=4, gpus=1.0)
    assert " ".join(options.rest) == "--recipe small --runs r --optimiser.lr 0.1 --running.workers 2 --heads.width=8"
    assert (worker_settings(options.run).min_workers, worker_settings(TrainingWorkersConfig()).min_workers) == (4, 1)


def test_settings_that_the_command_sets_itself_are_refused_in_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--running.devices", "2", "--running.nodes=3"]) == 2
    fix = "is set by this command itself (set --run.workers and --run.gpus instead)"
    assert capsys.readouterr().err == (
        f"error: train cannot be used:\n  --running.devices: {fix}\n  --running.nodes=3: {fix}\n"
    )


def test_only_torchruns_variables_give_a_process_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "7")
    monkeypatch.setenv("PYTHONPATH", "mine")
    variables = environment({"RANK": "3"})
    assert (variables["RANK"], "SLURM_PROCID" in variables) == ("3", False)
    assert variables["PYTHONPATH"].split(os.pathsep) == [str(Path(__file__).parents[3]), "mine"]


def started(folder: Path, code: str | None = None) -> TrainingProcess:
    process = TrainingProcess()
    code = code_sha256(TRAINER) if code is None else code
    process.start(Launch(arguments=("fly",), environment={}, folder=str(folder), code=code))
    return process


def read_to_the_end(process: TrainingProcess) -> list[Output]:
    outputs = [process.read_output(None)]
    while outputs[-1].status is None:
        outputs.append(process.read_output(None))
    return outputs


def test_the_output_of_a_process_is_read_to_its_end(tmp_path: Path) -> None:
    outputs = read_to_the_end(started(tmp_path))
    assert outputs[-1].status == 2
    texts = [text for output in outputs for text in output.texts]
    assert texts[0] == ("err", "error: command cannot be used:\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_status_of_a_killed_process_is_its_signal(tmp_path: Path) -> None:
    process = started(tmp_path)
    process._process.send_signal(signal.SIGKILL)
    assert read_to_the_end(process)[-1].status == -signal.SIGKILL


def test_another_version_of_the_trainer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"worker cannot be used:\n  trainer on .*: is \w+, the driver has another "):
        started(tmp_path, code="another")
