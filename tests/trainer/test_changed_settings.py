"""After a divergence a run goes back to an earlier checkpoint, and resumes with other settings of its optimiser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError
from trainer.data.source import open_source
from trainer.run.checkpoint import read_checkpoint, steps_in_checkpoint
from trainer.run.fit import fit
from trainer.run.history import read_history
from trainer.run.train import train
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder, read_json
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings

Recipes = Callable[..., TrainRecipe]
CHANGED = OptimiserSettings(lr=5e-4, warmup=0, weight_decay=0.1, beta1=0.8, beta2=0.99, gradient_clip=1.0)


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class CutBefore(Callback):
    """Ends the run before a step, and notes the groups of the optimiser at every step."""

    def __init__(self, step: int = -1) -> None:
        self.step = step
        self.groups: list[list[dict[str, Any]]] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise PowerCutError

    def on_before_optimizer_step(self, _: Trainer, __: Any, optimizer: torch.optim.Optimizer) -> None:
        names = ("lr", "betas", "weight_decay")
        self.groups.append([{name: group[name] for name in names} for group in optimizer.param_groups])


def fit_with(recipe: TrainRecipe, cache: Cache, run: RunFolder, *callbacks: Callback) -> None:
    fit(TrainingRun(recipe=recipe, source=open_source(cache), folder=run), lambda _: None, callbacks)


def test_changed_settings_of_the_optimiser_are_refused_unless_accepted_and_then_hold_and_are_recorded(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    run, watch = RunFolder(path=tmp_path / "run"), CutBefore()
    with pytest.raises(PowerCutError):
        fit_with(recipe_of(steps=12), full_cache, run, CutBefore(6))
    with pytest.raises(IdentityError) as refusal:
        train(recipe_of(steps=12, optimiser=CHANGED), full_cache.store.uri, run.path, lambda _: None)
    assert str(refusal.value).endswith("; to resume with these, add --running.accept-changes True")
    accepted = recipe_of(steps=12, optimiser=CHANGED, running={"accept_changes": True})
    with pytest.raises(PowerCutError):
        fit_with(accepted, full_cache, run, watch, CutBefore(9))
    assert len(watch.groups) == 5  # from the fourth step on
    factor = float(read_history(run.history)[5]["lr"]) / CHANGED.lr
    assert 0.5 < factor < 1
    for decayed, kept in watch.groups:
        assert decayed == {"lr": pytest.approx(kept["lr"]), "betas": (0.8, 0.99), "weight_decay": 0.1}
        assert kept["weight_decay"] == 0.0
    # afterwards the changed settings are those of the run, and those that it began with are refused
    with pytest.raises(IdentityError):
        train(recipe_of(steps=12), full_cache.store.uri, run.path, lambda _: None)
    train(recipe_of(steps=12, optimiser=CHANGED), full_cache.store.uri, run.path, lambda _: None)
    rates = [float(row["lr"]) for row in read_history(run.history) if row["lr"]]
    cosine = [(1 + torch.cos(torch.tensor(torch.pi * step / 12))) / 2 for step in range(4, 12)]
    assert rates[4:] == pytest.approx([CHANGED.lr * float(factor) for factor in cosine], rel=1e-5)
    [change] = read_json(run.card)["changes"]
    assert change["after_step"] == 4
    assert "optimiser.lr: before has 0.002, this run has 0.0005" in change["settings"]
    assert len(change["settings"]) == 6
    assert read_json(run.identity)["changes"] == [change]


def test_what_is_no_setting_of_the_optimiser_is_refused_though_changes_are_accepted(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    run = RunFolder(path=tmp_path / "run")
    with pytest.raises(PowerCutError):
        fit_with(recipe_of(steps=8), full_cache, run, CutBefore(5))
    for changes in ({"seed": 1}, {"optimiser": OptimiserSettings(kind="lamb", lr=2e-3, warmup=2)}):
        recipe = recipe_of(steps=8, running={"accept_changes": True}, **changes)
        with pytest.raises(IdentityError):
            train(recipe, full_cache.store.uri, run.path, lambda _: None)


def test_the_last_checkpoints_are_kept_and_a_run_that_goes_back_to_one_ends_in_the_same_bytes(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe, run = recipe_of(steps=12, running={"checkpoint_every": 2, "keep": 3}), RunFolder(path=tmp_path / "run")
    with pytest.raises(PowerCutError):
        fit_with(recipe, full_cache, run, CutBefore(9))
    assert run.earlier_steps() == [4, 6]
    assert [steps_in_checkpoint(run.earlier_checkpoint(step)) for step in (4, 6)] == [4, 6]
    assert steps_in_checkpoint(run.checkpoint) == 8
    assert read_checkpoint(run.earlier_checkpoint(4))["state_dict"].keys()
    run.earlier_checkpoint(4).rename(run.checkpoint)
    with pytest.raises(PowerCutError):
        fit_with(recipe, full_cache, run, CutBefore(7))
    assert run.earlier_steps() == [4]  # and not that of the sixth step, which the run had reached before
    train(recipe, full_cache.store.uri, run.path, lambda _: None)
    assert run.earlier_steps() == [8, 10]
    undisturbed = train(recipe_of(steps=12), full_cache.store.uri, tmp_path / "undisturbed", lambda _: None)
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()
    assert undisturbed.earlier_steps() == []


def test_a_finished_run_goes_on_with_more_steps_and_keeps_its_student_until_the_next_is_exported(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    uri, run = full_cache.store.uri, RunFolder(path=tmp_path / "run")
    train(recipe_of(steps=4), uri, run.path, lambda _: None)
    first = run.weights.read_bytes()
    with pytest.raises(IdentityError, match=r"steps: the run there has 4, this run has 8") as refusal:
        train(recipe_of(steps=8), uri, run.path, lambda _: None)
    assert str(refusal.value).endswith("; to resume with these, add --running.accept-changes True")
    more = recipe_of(steps=8, running={"accept_changes": True, "checkpoint_every": 2})
    with pytest.raises(PowerCutError):
        fit_with(more, full_cache, run, CutBefore(7))
    assert (run.is_finished(4), run.is_finished(8), run.weights.read_bytes()) == (True, False, first)
    train(more, uri, run.path, lambda _: None)
    assert (run.is_finished(4), run.is_finished(8), run.weights.read_bytes() == first) == (False, True, False)
    assert [row["step"] for row in read_history(run.history) if row["loss"]] == [str(step) for step in range(1, 9)]
    [change] = read_json(run.card)["changes"]
    assert change == {"after_step": 4, "settings": ["steps: before has 4, this run has 8"]}

    train(recipe_of(steps=4), uri, tmp_path / "other", lambda _: None)
    train(more, uri, tmp_path / "other", lambda _: None)
    assert (tmp_path / "other" / "student.safetensors").read_bytes() == run.weights.read_bytes()


def test_fewer_steps_are_refused_though_changes_are_accepted(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    train(recipe_of(steps=3), full_cache.store.uri, tmp_path / "run", lambda _: None)
    fewer = recipe_of(steps=2, running={"accept_changes": True})
    with pytest.raises(IdentityError, match="steps: the run there has 3, this run has 2") as refusal:
        train(fewer, full_cache.store.uri, tmp_path / "run", lambda _: None)
    assert "accept-changes" not in str(refusal.value)
