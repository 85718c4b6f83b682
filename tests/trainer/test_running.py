"""How a run is carried out: by several processes, with what loggers, until it stalls; and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.strategies import DDPStrategy
from own_processes import carry_out, losses

from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, SettingError
from storage_schemas.format.teacher import TeacherSpec
from trainer.data.source import open_source
from trainer.run.history import read_history
from trainer.run.lightning_trainer import find_accelerator, find_strategy
from trainer.run.loggers import FlatMLFlowLogger
from trainer.run.processes import gather, is_first
from trainer.run.train import train
from trainer.run_folder import RunFolder, read_json
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings, OptimiserSettings
from trainer.settings.running import DataSettings
from trainer.settings.student import VitSettings

Recipes = Callable[..., TrainRecipe]
EVERYTHING: dict[str, Any] = {
    "student": "radio_test_vit",
    "vit": VitSettings(position_grid=8, registers=2, global_blocks=2, windows=(2,)),
    "average": AverageSettings(decay=0.9, mesa_weight=0.5),
    "damp": 0.05,
}
STEPS = 6


@pytest.fixture(scope="module")
def alone(full_cache: Cache, tmp_path_factory: pytest.TempPathFactory, recipe_of: Recipes) -> RunFolder:
    return train(
        recipe_of(steps=STEPS, **EVERYTHING), full_cache.store.uri, tmp_path_factory.mktemp("a") / "run", lambda _: None
    )


@pytest.mark.parametrize(("first", "then"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_a_run_goes_on_by_another_number_of_processes_and_workers_as_if_nothing_had_been(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, alone: RunFolder, first: int, then: int
) -> None:
    recipes = [
        recipe_of(steps=STEPS, running={"devices": devices, "workers": workers, "checkpoint_every": 3}, **EVERYTHING)
        for devices, workers in ((first, 0), (then, 1))
    ]
    run = carry_out(recipes[0], full_cache, tmp_path, stop=4)
    if then > 1:
        carry_out(recipes[1], full_cache, tmp_path)
    else:
        train(recipes[1], full_cache.store.uri, run.path, lambda _: None)
    assert losses(run) == pytest.approx(losses(alone), rel=1e-5)
    scores = [read_json(each.metrics)["evaluations"] for each in (alone, run)]
    assert [[each["step"] for each in found] for found in scores] == [[0, STEPS]] * 2
    for name in ("any", "canvas", "fixed"):
        fidelities = [found[-1]["teachers"][name]["fidelity"] for found in scores]
        assert fidelities[1] == pytest.approx(fidelities[0], rel=1e-3)


@pytest.mark.slow
def test_the_command_line_trains_by_two_processes_and_says_everything_once(full_cache: Cache, tmp_path: Path) -> None:
    command = (
        f"train --recipe demo --cache {full_cache.store.uri} --runs {tmp_path} --student test_vit --steps 2 "
        "--optimiser.warmup 0 --heads.width 32 --running.devices 2 --running.accelerator cpu --running.loggers csv"
    )
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *command.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train: student test_vit, 2 steps") == 1
    assert done.stdout.count("step 2: held-out fidelity") == 1
    assert (tmp_path / "test_vit" / "student.json").exists()


def test_a_run_that_stalls_stops_exports_and_stays_stopped(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    # a rate of almost nothing: rounding alone moves the scores
    recipe = recipe_of(
        steps=40,
        patience=2,
        optimiser=OptimiserSettings(lr=1e-30, weight_decay=0.0),
        running={"evaluate_every": 1, "checkpoint_every": 100},
    )
    run = train(recipe, full_cache.store.uri, tmp_path, lambda _: None)
    steps = [evaluation["step"] for evaluation in read_json(run.metrics)["evaluations"]]
    assert steps == [0, 1, 2]
    assert run.card.exists()
    before = run.weights.read_bytes()
    run.card.unlink()
    train(recipe, full_cache.store.uri, tmp_path, lambda _: None)
    assert [evaluation["step"] for evaluation in read_json(run.metrics)["evaluations"]] == steps
    assert run.weights.read_bytes() == before


def test_the_history_has_every_score_by_teacher_and_resolution(alone: RunFolder) -> None:
    [*_, last] = read_history(alone.history)
    metrics = read_json(alone.metrics)["evaluations"][-1]
    assert float(last["fidelity/any"]) == metrics["teachers"]["any"]["fidelity"]
    assert float(last["fidelity/canvas/high-64"]) == metrics["teachers"]["canvas"]["sets"]["high-64"]
    assert float(last["angle/fixed"]) == metrics["teachers"]["fixed"]["angle"]
    assert float(last["effective_rank"]) == metrics["student"]["effective_rank"]
    assert float(last["scale_variance"]) == metrics["student"]["scale"] > 0
    assert "angle/canvas" not in last


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_refused_before_anything_is_written(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, name: str
) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(SettingError) as refusal:
        train(recipe_of(running={"loggers": ("csv", name)}), full_cache.store.uri, tmp_path / "run", lambda _: None)
    assert str(refusal.value) == (
        f"running.loggers cannot be used:\n  {name}: {name} is not installed (pip install 'stillhouse[{name}]')"
    )
    assert not (tmp_path / "run").exists()


def test_mlflow_gets_names_that_are_no_folders_of_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = list[dict[str, float]]()
    monkeypatch.setattr(MLFlowLogger, "log_metrics", lambda _, metrics, step: logged.append({**metrics, "step": step}))
    logger = object.__new__(FlatMLFlowLogger)  # it asks for the library as it is made
    logger.log_metrics({"loss": 1.0, "fidelity/any": 2.0, "fidelity/any/low-32": 3.0}, 4)
    assert logged == [{"loss": 1.0, "fidelity.any": 2.0, "fidelity.any.low-32": 3.0, "step": 4}]


def test_a_gpu_that_is_not_there_is_refused(recipe_of: Recipes) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SettingError, match=r"running\.accelerator: torch finds no GPU"):
        find_accelerator(recipe_of(running={"accelerator": "gpu"}).running)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"patience": 2},
            "patience: early stopping needs evaluations between the first and the last step "
            "(set running.evaluate_every)",
        ),
        ({"running": {"devices": 4}}, "data.batch_high: 2 views cannot be divided equally among 4 training processes"),
        ({"running": {"nodes": 0}}, "running.nodes: 0 is less than 1"),
        ({"damp": -0.1}, "damp: -0.1 is not a finite number of at least 0"),
        ({"average": AverageSettings(decay=1.0)}, "average.decay: 1.0 is not in [0, 1)"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_they_are_made(
    recipe_of: Recipes, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingError) as refusal:
        recipe_of(**changes)
    assert [str(problem) for problem in refusal.value.problems] == [said]


def test_shifts_and_the_margin_of_the_views_must_agree(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, cache_maker: Any, specs: dict[str, TeacherSpec]
) -> None:
    with pytest.raises(SettingError) as refusal:
        train(recipe_of(data=DataSettings(shifts=False, proportions={"low-32": 1.0})), full_cache.store.uri, tmp_path)
    assert str(refusal.value) == (
        "data.shifts cannot be used:\n  low-32: has a margin, so its teachers' windows are shifted "
        "(cut views with --views.margin 0, or set data.shifts to True)"
    )
    maker = cache_maker(tmp_path / "cache", {"low-32": 10}, margin=0).views()
    maker.teacher(specs["any"]).stats(specs["any"])
    with pytest.raises(SettingError) as refusal:
        train(recipe_of(), maker.store.uri, tmp_path / "run")
    assert str(refusal.value) == (
        "data.shifts cannot be used:\n  low-32: has no margin, so windows cannot shift "
        "(cut views with a margin, or set data.shifts to False)"
    )
    still = recipe_of(steps=2, data=DataSettings(shifts=False, batch_low=4, window_shards=2))
    assert train(still, maker.store.uri, tmp_path / "run", lambda _: None).card.exists()


def test_one_process_gathers_what_it_saw_alone() -> None:
    assert gather("seen") == ["seen"]


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for rank in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(rank, raising=False)
    assert is_first()
    monkeypatch.setenv(name, "0")
    assert is_first()
    monkeypatch.setenv(name, "1")
    assert not is_first()


def test_several_processes_train_by_ddp_and_one_by_itself(recipe_of: Recipes) -> None:
    assert isinstance(find_strategy(recipe_of(running={"devices": 2}).running), DDPStrategy)
    assert find_strategy(recipe_of().running) == "auto"


def test_a_run_of_another_cache_is_refused_with_both_digests(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, cache_maker: Any, specs: dict[str, TeacherSpec]
) -> None:
    train(recipe_of(steps=1), full_cache.store.uri, tmp_path / "run", lambda _: None)
    other = cache_maker(tmp_path / "cache", {"low-32": 10, "low-48": 14, "high-64": 10}).views()
    for name in ("any", "fixed", "canvas"):
        other.teacher(specs[name]).stats(specs[name])
    with pytest.raises(IdentityError) as refusal:
        train(recipe_of(steps=1), other.store.uri, tmp_path / "run", lambda _: None)
    views = [open_source(cache).identity["views"] for cache in (full_cache, other.cache)]
    assert f"cache.views: the run there has {views[0]!r}, this run has {views[1]!r}" in {
        str(problem).replace('"', "'") for problem in refusal.value.problems
    }
