"""A run goes on with the teachers and the views that it began with, whatever joins the cache meanwhile."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, MissingError
from storage_schemas.format.identity import digest
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import Generation
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from trainer.data.source import open_source
from trainer.report.make import make_report
from trainer.run.fit import fit
from trainer.run.train import train
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.settings.config import TrainRecipe

Recipes = Callable[..., TrainRecipe]
SETS = {"low-32": 10, "high-64": 10}
FIRST_SHARDS = 3
STEPS = 6


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class Cut(Callback):
    """Ends a run before its sixth step."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 5:
            raise PowerCutError


def begin(recipe: TrainRecipe, cache: Cache, run: RunFolder) -> None:
    with pytest.raises(PowerCutError):
        fit(TrainingRun(recipe=recipe, source=open_source(cache), folder=run), lambda _: None, [Cut()])


def extend(maker: Any) -> None:
    """Add a generation of six views to every set; nothing of it is written yet but the manifest."""
    sets = {
        view_set: replace(
            shape, grid=ShardGrid(counts=(*shape.grid.counts, 6), rows_per_shard=shape.grid.rows_per_shard)
        )
        for view_set, shape in maker.manifest.sets.items()
    }
    maker.manifest = replace(
        maker.manifest, sets=sets, extensions=(Generation(views={}, images={"count": 6, "keys_sha256": digest({})}),)
    )


def new_shard(_: ViewSet, shard: int) -> bool:
    return shard >= FIRST_SHARDS


@pytest.mark.parametrize("moment", ["a teacher begins", "a teacher is extracted", "a teacher is measured"])
def test_a_teacher_that_joins_changes_nothing_for_a_run_that_has_begun(
    tmp_path: Path, recipe_of: Recipes, cache_maker: Any, specs: dict[str, TeacherSpec], moment: str
) -> None:
    recipe, run, said = recipe_of(steps=STEPS), RunFolder(path=tmp_path / "run"), list[str]()
    maker = cache_maker(tmp_path / "cache", SETS).views().teacher(specs["any"]).stats(specs["any"])
    undisturbed = train(recipe, maker.store.uri, tmp_path / "undisturbed", lambda _: None)
    begin(recipe, maker.cache, run)
    maker.teacher(specs["fixed"], lambda _, shard: shard == 0 or moment != "a teacher begins")
    if moment == "a teacher is measured":
        maker.stats(specs["fixed"])
    train(recipe, maker.store.uri, run.path, said.append)
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()
    assert "train: without fixed of the cache: not measured yet, or added after this run began" in said
    train(recipe, maker.store.uri, run.path, lambda _: None)  # the finished one is finished for the same command
    # a run that begins now learns from whoever was measured
    later = train(recipe_of(steps=1), maker.store.uri, tmp_path / "later", lambda _: None)
    expected = ["any", "fixed"] if moment == "a teacher is measured" else ["any"]
    assert list(read_json(later.card)["teachers"]) == expected
    make_report(maker.store.uri, tmp_path, tmp_path / "report.html", lambda _: None)
    assert (tmp_path / "report.html").exists()


def test_a_run_that_names_a_teacher_without_statistics_is_refused(
    tmp_path: Path, recipe_of: Recipes, cache_maker: Any, specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path / "cache", SETS).views().teacher(specs["any"])
    recipe = recipe_of(steps=1)
    for named in ((), ("any",)):
        with pytest.raises(MissingError, match="the features were never measured"):
            train(replace(recipe, data=replace(recipe.data, teachers=named)), maker.store.uri, tmp_path / "run")


@pytest.mark.parametrize("moment", ["views", "features", "statistics"])
def test_a_cache_that_is_extended_changes_nothing_for_a_run_that_has_begun(
    tmp_path: Path, recipe_of: Recipes, cache_maker: Any, specs: dict[str, TeacherSpec], moment: str
) -> None:
    recipe, run = recipe_of(steps=STEPS), RunFolder(path=tmp_path / "run")
    maker = cache_maker(tmp_path / "cache", SETS).views().teacher(specs["any"]).stats(specs["any"])
    undisturbed = train(recipe, maker.store.uri, tmp_path / "undisturbed", lambda _: None)
    begin(recipe, maker.cache, run)
    extend(maker)
    maker.views(lambda shard: shard >= FIRST_SHARDS)
    if moment != "views":
        maker.teacher(specs["any"], new_shard)
    if moment == "statistics":
        maker.stats(specs["any"])
        assert open_source(maker.cache).identity["rows"]["low-32"] == {"train": 12, "heldout": 4}
    train(recipe, maker.store.uri, run.path, lambda _: None)
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()
    assert read_json(run.metrics)["evaluations"] == read_json(undisturbed.metrics)["evaluations"]
    assert read_json(run.card)["cache"] == read_json(undisturbed.card)["cache"]
    if moment == "statistics":
        make_report(maker.store.uri, tmp_path, tmp_path / "report.html", lambda _: None)
    else:
        with pytest.raises(MissingError):  # a run that begins now would learn from views without features
            train(recipe_of(steps=1), maker.store.uri, tmp_path / "later", lambda _: None)


def test_a_first_generation_with_a_shard_lost_is_not_made_up_from_the_next(
    tmp_path: Path, recipe_of: Recipes, cache_maker: Any, specs: dict[str, TeacherSpec]
) -> None:
    recipe, run = recipe_of(steps=STEPS), RunFolder(path=tmp_path / "run")
    maker = cache_maker(tmp_path / "cache", SETS).views().teacher(specs["any"]).stats(specs["any"])
    begin(recipe, maker.cache, run)
    extend(maker)
    maker.views(lambda shard: shard >= FIRST_SHARDS).teacher(specs["any"], new_shard).stats(specs["any"])
    [record] = _commit_records(tmp_path / "cache", 1)
    record.unlink()
    with pytest.raises(MissingError, match="1 of"):
        train(recipe, maker.store.uri, run.path, lambda _: None)


def _commit_records(cache: Path, shard: int) -> list[Path]:
    found = [path for path in (cache / "tables").rglob("*") if path.is_file() and "low-32" in str(path)]
    return [path for path in found if "shards" in str(path) and "views" in str(path) and f"{shard}" in path.stem]


def test_a_run_of_a_cache_with_fewer_views_than_it_began_with_is_refused(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe, run = recipe_of(steps=STEPS), RunFolder(path=tmp_path / "run")
    begin(recipe, full_cache, run)
    stored = read_json(run.identity)
    stored["cache"]["rows"]["low-32"]["train"] += 1
    write_json(run.identity, stored)
    with pytest.raises(IdentityError, match=r"cache\.rows\.low-32\.train: the run there has 9, this run has 8"):
        train(recipe, full_cache.store.uri, run.path, lambda _: None)
