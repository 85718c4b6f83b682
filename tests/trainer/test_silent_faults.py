"""Faults that would train a student wrongly without a word: each of these tests has one such fault in mind."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.cache import Cache
from storage_schemas.format.views import ViewSet
from storage_schemas.row_ranges import row_ranges
from trainer.data.datamodule import CachedViews
from trainer.data.order import steps
from trainer.data.order_types import Order, ShuffledSet
from trainer.data.schedule import make_schedule, scheduled_steps
from trainer.data.source import open_source
from trainer.evaluation.evaluate import Observations, observe, score
from trainer.evaluation.feature_spectrum import observe_features
from trainer.evaluation.fidelity import observe_fidelity
from trainer.objective.token_maps import TokenMaps
from trainer.run.fit import build_model, fit
from trainer.run.history import read_history
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings, LossSettings, OptimiserSettings, StageSettings

Recipes = Callable[..., TrainRecipe]
LOW = ViewSet(partition="low", resolution=128)


def history(recipe: TrainRecipe, cache: Cache, folder: Path, *callbacks: Callback) -> list[dict[str, float]]:
    run = RunFolder(path=folder / "run")
    fit(TrainingRun(recipe=recipe, source=open_source(cache), folder=run), lambda _: None, callbacks)
    rows = [row for row in read_history(run.history) if row["loss"]]
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def test_the_loss_is_the_sum_of_its_terms_with_every_weight_of_the_recipe(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    loss = LossSettings(
        spatial_weight=2.0, summary_weight=3.0, low_weight=0.25, high_weight=5.0, teacher_weights={"any": 7.0}
    )
    average = AverageSettings(decay=0.5, mesa_weight=11.0)
    by_part = {"low": 0.25, "high": 5.0, "any": 7.0, "spatial": 2.0, "summary": 3.0, "mesa": 11.0}
    rows = history(recipe_of(steps=3, loss=loss, average=average), full_cache, tmp_path)
    assert len(rows) == 3
    for row in rows:
        terms = {name: value for name, value in row.items() if name.partition("/")[0] in ("low", "high")}
        assert len(terms) == 12  # two partitions: three teachers, two of them with a summary; and MESA
        weighted = [np.prod([by_part.get(part, 1.0) for part in name.split("/")]) * terms[name] for name in terms]
        assert row["loss"] == pytest.approx(sum(weighted), rel=1e-5)


def test_the_learning_rate_in_the_history_is_the_one_that_the_optimiser_had(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.rates: list[float] = []

        def on_before_optimizer_step(self, _: Trainer, __: Any, optimizer: torch.optim.Optimizer) -> None:
            self.rates.append(optimizer.param_groups[0]["lr"])

    watch = Watch()
    optimiser = OptimiserSettings(lr=1e-2, warmup=2)
    stages = (StageSettings(steps=4), StageSettings(steps=3))
    rows = history(recipe_of(steps=7, stages=stages, optimiser=optimiser), full_cache, tmp_path, watch)
    assert len(set(watch.rates)) == 4
    assert [row["lr"] for row in rows] == pytest.approx(watch.rates, rel=1e-12)


def epochs_of(order: Order, count: int) -> list[list[int]]:
    """The rows of a set in the order of each of its first epochs."""
    views = len(order.sets[LOW].rows)
    taken = [part for (part,) in islice(steps(order), count * views // order.batches["low"])]
    rows = np.concatenate([part.rows for part in taken])
    return rows.reshape(count, views).tolist()


def order(seed: int = 0, views: int = 64, **changes: Any) -> Order:
    sets = {LOW: ShuffledSet(rows=row_ranges([0], [views]), rows_per_shard=8, proportion=1.0)}
    return Order(seed=seed, sets=sets, batches={"low": 4}, window_shards=2, **changes)


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    epochs = [epoch for seed in range(3) for epoch in epochs_of(order(seed), 4)]
    assert all(sorted(epoch) == list(range(64)) for epoch in epochs)
    # two random orders of 64 views agree in one place on average, and in seven almost never
    for place, first in enumerate(epochs):
        for second in epochs[:place]:
            assert sum(a == b for a, b in zip(first, second, strict=True)) < 7


def test_the_place_of_a_view_in_one_epoch_says_nothing_about_its_place_in_the_next() -> None:
    places = np.argsort(np.array(epochs_of(order(views=32), 400)), axis=1).astype(np.float64)
    correlation = np.corrcoef(places[:-1].flatten(), places[1:].flatten())[0, 1]
    assert abs(correlation) < 0.05
    assert np.abs(places.mean(axis=0) - 15.5).max() < 2.5  # five standard deviations of a mean over 400 epochs


def drawn_sets(cache: Cache, recipe: TrainRecipe) -> list[str]:
    schedule = make_schedule(open_source(cache), recipe)
    return [
        part.view_set.name for step in scheduled_steps(schedule) for part in step if part.view_set.name != "high-64"
    ]


@pytest.mark.parametrize("lengths", [(40, 40, 40), (17, 40, 63)])
def test_stages_do_not_repeat_the_draws_of_the_stages_before(
    full_cache: Cache, recipe_of: Recipes, lengths: tuple[int, ...]
) -> None:
    stages = tuple(StageSettings(steps=length) for length in lengths)
    drawn = drawn_sets(full_cache, recipe_of(steps=sum(lengths), stages=stages))
    firsts = [sum(lengths[:place]) for place in range(len(lengths))]
    parts = [drawn[first : first + min(lengths)] for first in firsts]
    assert len({tuple(part) for part in parts}) == len(lengths)
    # a run of one stage draws anew in every cycle too
    cycle = make_schedule(open_source(full_cache), recipe_of(steps=120))[0].order.steps_per_cycle
    undivided = drawn_sets(full_cache, recipe_of(steps=20 * cycle))
    assert len({tuple(undivided[first : first + cycle]) for first in range(0, 20 * cycle, cycle)}) > 10


def test_evaluation_neither_teaches_batch_norm_nor_depends_on_what_was_evaluated_before(
    full_cache: Cache, recipe_of: Recipes
) -> None:
    source, recipe = open_source(full_cache, sets=["high-64"]), recipe_of(student="test_resnet")
    model, shape = build_model(recipe, source)
    model.train()
    maps, views = TokenMaps(source, shape.tokens), CachedViews(source, recipe)
    dispersions = {name: found.stats.dispersion for name, found in source.teachers.items() if found.stats.dispersion}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert any(name.endswith("running_mean") for name in before)
    scores = [
        score([observe(model, maps, views.heldout_loader(), [64])], source.teachers, dispersions) for _ in range(2)
    ]
    assert scores[0] == scores[1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    # the same views in other company: batch norm in training mode would give each batch other numbers
    one_by_one = replace(recipe, data=replace(recipe.data, batch_low=1, batch_high=1))
    loader = CachedViews(source, one_by_one).heldout_loader()
    again = score([observe(model, maps, loader, [64])], source.teachers, dispersions)
    for name, teacher in scores[0].teachers.items():
        assert again.teachers[name].fidelity == pytest.approx(teacher.fidelity, rel=1e-4)


def test_headline_scores_are_over_all_tokens_and_all_views_not_means_over_sets_or_processes() -> None:
    random = torch.Generator().manual_seed(0)

    def observed(views: int, scale: float, error: float, view_set: str) -> Observations:
        teacher = scale * torch.randn(views, 2, 2, 3, generator=random)
        student = teacher + error * torch.randn(views, 2, 2, 3, generator=random)
        sums = observe_fidelity(student, teacher, torch.ones(views, 2, 2, dtype=torch.bool))
        squares = error * torch.rand(views, generator=random)
        found = Observations(features=[observe_features(student)], scales=[torch.rand(views, generator=random)])
        found.spatial[("a", view_set)] = [sums]
        found.squares["a"] = [squares]
        tokens[view_set] = [*tokens.get(view_set, []), (student.double(), teacher.double())]
        angles.append(squares)
        return found

    tokens: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    angles: list[torch.Tensor] = []
    processes = [observed(9, 1.0, 0.1, "low-32"), observed(2, 5.0, 2.0, "high-64"), observed(4, 2.0, 0.5, "low-32")]
    found = score(processes, ["a"], {"a": 0.5})

    def expected(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        student, teacher = (torch.cat([pair[side].reshape(-1, 3) for pair in pairs]) for side in (0, 1))
        return float(teacher.var(dim=0, correction=0).mean() / (student - teacher).square().mean())

    assert found.teachers["a"].sets == {name: pytest.approx(expected(pairs)) for name, pairs in tokens.items()}
    assert found.teachers["a"].fidelity == pytest.approx(
        expected([pair for pairs in tokens.values() for pair in pairs])
    )
    assert found.teachers["a"].angle == pytest.approx(float(torch.cat(angles).mean()) / 0.5)
