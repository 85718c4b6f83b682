"""A cache without held-out views: training is refused before it begins, unless the user has asked for no scores."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage_schemas.format.errors import MissingError, SettingError
from storage_schemas.format.teacher import TeacherSpec
from trainer.export import load
from trainer.report.make import make_report
from trainer.run.train import train
from trainer.run_folder import read_json
from trainer.settings.config import TrainRecipe

Recipes = Callable[..., TrainRecipe]


def cache_without(cache_maker: Any, folder: Path, specs: dict[str, TeacherSpec], share: float | None) -> Any:
    """A cache whose views are all for training; its manifest says what share was asked for."""
    maker = cache_maker(folder, {"low-32": 8, "high-64": 8})
    if share is not None:
        views = {**maker.manifest.identity["views"], "heldout": share}
        maker.manifest = replace(maker.manifest, identity={**maker.manifest.identity, "views": views})
    return maker.views().teacher(specs["any"]).stats(specs["any"])


@pytest.fixture(autouse=True)
def _no_view_is_held_out(monkeypatch: pytest.MonkeyPatch, cache_maker: Any) -> None:
    module = sys.modules[cache_maker.__module__]
    row_of = module.view_row
    monkeypatch.setattr(module, "view_row", lambda row, _: row_of(row, "train"))


def test_a_run_that_cannot_be_scored_is_refused_before_anything_is_written(
    tmp_path: Path, recipe_of: Recipes, cache_maker: Any, specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_without(cache_maker, tmp_path / "cache", specs, 0.01)
    with pytest.raises(MissingError) as refusal:
        train(recipe_of(steps=1), maker.store.uri, tmp_path / "run", lambda _: None)
    assert str(refusal.value) == (
        "held-out views is missing:\n  any: has no held-out view to score a student on (cut views of more images or a "
        "larger held-out share, or train without scores: --running.evaluate False)"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("share", "running"), [(0.0, {}), (0.01, {"evaluate": False})])
def test_a_run_without_scores_is_trained_exported_and_reported_when_it_is_asked_for(
    tmp_path: Path,
    recipe_of: Recipes,
    cache_maker: Any,
    specs: dict[str, TeacherSpec],
    share: float,
    running: dict[str, Any],
) -> None:
    maker, said = cache_without(cache_maker, tmp_path / "cache", specs, share), list[str]()
    recipe = recipe_of(steps=3, running={**running, "evaluate_every": 1})
    run = train(recipe, maker.store.uri, tmp_path / "runs" / "student", said.append)
    assert "train: the student is not scored: no held-out views" in said
    assert read_json(run.metrics)["evaluations"] == []
    assert read_json(run.card)["scores"] is None
    assert load(run.path).card["scores"] is None
    make_report(maker.store.uri, tmp_path / "runs", tmp_path / "report.html", said.append)
    assert "student" in (tmp_path / "report.html").read_text()


def test_early_stopping_without_scores_is_refused(
    tmp_path: Path, recipe_of: Recipes, cache_maker: Any, specs: dict[str, TeacherSpec]
) -> None:
    with pytest.raises(SettingError, match="early stopping needs the scores"):
        recipe_of(patience=1, running={"evaluate": False, "evaluate_every": 1})
    maker = cache_without(cache_maker, tmp_path / "cache", specs, 0.0)
    recipe = recipe_of(patience=1, running={"evaluate_every": 1})
    with pytest.raises(SettingError, match="early stopping needs held-out views"):
        train(recipe, maker.store.uri, tmp_path / "run", lambda _: None)
