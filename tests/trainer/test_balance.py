"""The spatial loss of a view set, divided by the variance of the teacher's features there: which, in which runs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zarr

from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, SettingError
from storage_schemas.format.views import ViewSet
from trainer.data.source import open_source
from trainer.learning.module import Distillation
from trainer.run.train import train
from trainer.run_folder import read_json
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import LossSettings

Recipes = Callable[..., TrainRecipe]
BY_SET = LossSettings(balance="view-set")


def test_the_variances_are_the_means_over_channels_of_what_stats_stored(full_cache: Cache) -> None:
    source = open_source(full_cache, by_set=True)
    assert open_source(full_cache).teachers["any"].variances == {}
    for teacher in ("any", "canvas", "fixed"):
        for name in ("low-32", "low-48", "high-64"):
            stored = zarr.open_array(
                f"{full_cache.store.uri}/features.zarr/teachers/{teacher}/stats/{name}/variance", mode="r"
            )
            expected = float(stored[...].mean())  # type: ignore[union-attr]
            assert source.teachers[teacher].variances[ViewSet.parse(name)] == pytest.approx(expected, rel=1e-12)


def test_a_run_divides_by_them_and_records_them_and_keeps_those_that_it_began_with(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[object] = []
    step = Distillation.training_step

    def noting(module: Distillation, *arguments: object) -> object:
        used.append(module.variances)
        return step(module, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Distillation, "training_step", noting)
    folder = tmp_path / "run"
    train(recipe_of(steps=1, loss=BY_SET), full_cache.store.uri, folder, lambda _: None)
    expected = {name: found.variances for name, found in open_source(full_cache, by_set=True).teachers.items()}
    assert used == [expected]
    stored = read_json(folder / "run.json")
    low = stored["cache"]["teachers"]["any"]["variances"]["low-32"]
    assert low == expected["any"][ViewSet.parse("low-32")]
    # new shards move the statistics of a cache; a run goes on with those that it began with
    stored["cache"]["teachers"]["any"]["variances"]["low-32"] = 2 * low
    resumed = open_source(full_cache, begun=stored["cache"], by_set=True)
    assert resumed.teachers["any"].variances[ViewSet.parse("low-32")] == 2 * low
    plain = train(
        recipe_of(steps=1, loss=LossSettings(balance="teacher")), full_cache.store.uri, tmp_path / "plain", str
    )
    assert used[1] == {"any": {}, "canvas": {}, "fixed": {}}
    assert "variances" not in json.dumps(read_json(plain.identity))
    with pytest.raises(IdentityError, match="balance"):
        train(recipe_of(steps=1, loss=LossSettings(balance="teacher")), full_cache.store.uri, folder, str)


@pytest.mark.parametrize("spatial", ["cosine", "smooth"])
def test_a_loss_that_is_no_squared_error_is_not_divided(recipe_of: Recipes, spatial: str) -> None:
    with pytest.raises(SettingError, match=f"loss.balance: {spatial} is not a squared error"):
        recipe_of(loss=replace(BY_SET, spatial=spatial))  # type: ignore[arg-type]
