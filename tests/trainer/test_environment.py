"""Variables of a scheduler that did not start this process: one message, not silence and not a traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest

from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, SettingError
from trainer.run.lightning_trainer import make_trainer, slurm_errors
from trainer.run.processes import RANKS, require_launcher
from trainer.run.train import train
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe

Recipes = Callable[..., TrainRecipe]


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from an environment without a scheduler."""
    for name in (*RANKS, "TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize(
    ("value", "found"),
    [("1", "is 1, but this run has 1 process, counted from 0"), ("one", "is 'one', not a number"), ("-1", "is '-1'")],
)
def test_a_number_that_this_run_has_not_is_refused_before_the_cache_is_opened(
    name: str, value: str, found: str, recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingError) as caught:
        train(recipe_of(), str(tmp_path / "no cache"), tmp_path / "run")
    said = str(caught.value)
    assert said.startswith(f"number of this process cannot be used:\n  {name}: {found}")
    assert f"(unset {name}, or start every process of the run with torchrun" in said


@pytest.mark.parametrize("name", ["RANK", "GROUP_RANK"])
def test_numbers_of_torchrun_need_torchrun(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingError, match=f"{name}: is 1, but torchrun did not start this process"):
        require_launcher(2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "ray")
    require_launcher(2)


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_numbers_that_fit_the_run_are_accepted(
    name: str, recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, "1")
    require_launcher(2)
    monkeypatch.setenv(name, "0")
    with pytest.raises(MissingError):  # the cache: nothing is said of the process
        train(recipe_of(), str(tmp_path / "no cache"), tmp_path / "run")


SLURM = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NNODES": "1", "SLURM_NTASKS": "4"}


def test_a_slurm_job_of_tasks_without_nodes_is_one_message(
    recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=r"^Slurm job cannot be used:\n  SLURM_\* variables: You set `.*srun"):
        make_trainer(recipe_of(), RunFolder(path=tmp_path), ())


BATCH = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
"""What a batch script of a job has besides, and a shell of it has not."""


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        (BATCH, "You set `devices=2` in Lightning, but the number of tasks per node"),
        (BATCH | {"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2"}, "You set `num_nodes=1` in Lightning, but"),
        ({}, "SLURM_[A-Z]+ is not set: srun did not start this process "),
    ],
)
def test_a_slurm_job_that_is_not_of_this_run_is_one_message(
    variables: dict[str, str],
    found: str,
    full_cache: Cache,
    recipe_of: Recipes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in (SLURM | {"SLURM_NTASKS_PER_NODE": "4"} | variables).items():
        monkeypatch.setenv(name, value)
    recipe = recipe_of(steps=2, running={"devices": 2})
    with pytest.raises(SettingError, match=rf"^Slurm job cannot be used:\n  SLURM_\* variables: {found}"):
        train(recipe, full_cache.store.uri, tmp_path / "run", lambda _: None)


def test_another_error_of_lightning_is_not_taken_for_slurms() -> None:
    with pytest.raises(ValueError, match="another"), slurm_errors():
        raise ValueError("another")
