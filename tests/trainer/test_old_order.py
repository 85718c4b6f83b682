"""A run that began when the order of views was a table goes on under it; a new run has the order without one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, IdentityError
from storage_schemas.format.views import ViewSet
from trainer.data.dataset import BatchRequest, CachedBatches
from trainer.data.source import open_source
from trainer.run.fit import fit
from trainer.run.train import train
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.settings.config import TrainRecipe

Recipes = Callable[..., TrainRecipe]


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class Cut(Callback):
    """Ends a run before its sixth step."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 5:
            raise PowerCutError


def test_a_run_that_began_with_tables_goes_on_with_them(full_cache: Cache, tmp_path: Path, recipe_of: Recipes) -> None:
    recipe, run, said = recipe_of(steps=6), RunFolder(path=tmp_path / "run"), list[str]()
    by_table = replace(recipe, data=replace(recipe.data, order="table"))
    uri = full_cache.store.uri
    undisturbed = train(by_table, uri, tmp_path / "undisturbed", lambda _: None)
    with pytest.raises(PowerCutError):
        fit(TrainingRun(recipe=by_table, source=open_source(full_cache), folder=run), lambda _: None, [Cut()])
    stored = read_json(run.identity)
    assert stored["recipe"]["data"].pop("order") == "table"  # as an earlier version recorded the run
    write_json(run.identity, stored)
    train(recipe, uri, run.path, said.append)
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()
    assert "train: this run began before some settings existed, and goes on as it began: data.order table" in said
    new = train(recipe, uri, tmp_path / "new", lambda _: None)
    assert read_json(new.identity)["recipe"]["data"]["order"] == "permutation"
    assert new.weights.read_bytes() != undisturbed.weights.read_bytes()
    with pytest.raises(IdentityError, match=r"recipe\.data\.order: the run there has \"permutation\""):
        train(by_table, uri, new.path, lambda _: None)


def test_rows_of_another_split_than_is_asked_for_are_not_read(full_cache: Cache) -> None:
    low, source = ViewSet(partition="low", resolution=32), open_source(full_cache)
    heldout, keys = source.sets[low].rows["heldout"][:], ((0, "a"), (0, "b"))
    batches = CachedBatches(source=source)
    asked = BatchRequest(view_set=low, split="heldout", rows=heldout, window_keys=keys)
    assert len(batches[(asked,)][0].pixels) == 2
    with pytest.raises(ContractError, match=r"low-32/8: is not of the split train"):
        batches[(replace(asked, split="train"),)]
    mixed = BatchRequest(view_set=low, split="train", rows=np.array([0, heldout[0]]), window_keys=keys)
    with pytest.raises(ContractError, match=r"low-32/8: is not of the split train"):
        batches[(mixed,)]
