"""The command that trains on Ray takes its own settings and hands all others on; processes are told their places."""

import os
import signal
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.training.options import PlacesConfig, crew, train_options
from pipeline.training.process import TRAINER, Heard, Launch, TrainingProcess, environment
from pipeline.workers.installation import code_sha256
from storage_schemas.format.errors import SettingError


def test_settings_that_are_not_its_own_go_on_to_the_trainer_as_they_are() -> None:
    given = (
        "--recipe small --run.workers 4 --runs r --run.gpus 1 --optimiser.lr 0.1 --running.workers 2 --heads.width=8"
    )
    options = train_options(given.split())
    assert options.run == PlacesConfig(workers=4, gpus=1.0)
    assert " ".join(options.rest) == "--recipe small --runs r --optimiser.lr 0.1 --running.workers 2 --heads.width=8"
    assert (crew(options.run).min_workers, crew(PlacesConfig()).min_workers) == (4, 1)


def test_settings_that_follow_from_the_places_are_refused_in_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--running.devices", "2", "--running.nodes=3"]) == 2
    fix = "follows from the places of the run (set --run.workers and --run.gpus instead)"
    assert capsys.readouterr().err == (
        f"error: train cannot be used:\n  --running.devices: {fix}\n  --running.nodes=3: {fix}\n"
    )


def test_a_process_is_told_its_place_by_torchrun_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "7")
    monkeypatch.setenv("PYTHONPATH", "mine")
    told = environment({"RANK": "3"})
    assert (told["RANK"], "SLURM_PROCID" in told) == ("3", False)
    assert told["PYTHONPATH"].split(os.pathsep) == [str(Path(__file__).parents[3]), "mine"]


def started(folder: Path, code: str | None = None) -> TrainingProcess:
    process = TrainingProcess()
    code = code_sha256(TRAINER) if code is None else code
    process.start(Launch(arguments=("fly",), environment={}, folder=str(folder), code=code))
    return process


def heard_to_the_end(process: TrainingProcess) -> list[Heard]:
    heard = [process.listen(None)]
    while heard[-1].status is None:
        heard.append(process.listen(None))
    return heard


def test_a_process_is_heard_to_its_end(tmp_path: Path) -> None:
    heard = heard_to_the_end(started(tmp_path))
    assert heard[-1].status == 2
    said = [one for each in heard for one in each.said]
    assert said[0] == ("err", "error: command cannot be used:\n")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process can ask to end with another")
def test_a_process_that_is_killed_says_by_what(tmp_path: Path) -> None:
    process = started(tmp_path)
    process._process.send_signal(signal.SIGKILL)
    assert heard_to_the_end(process)[-1].status == -signal.SIGKILL


def test_a_trainer_that_is_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"worker cannot be used:\n  trainer on .*, here another "):
        started(tmp_path, code="another")
