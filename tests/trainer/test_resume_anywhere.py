"""A run goes on from any step, whoever reads and whoever trains, with the very sample that would have come."""

import gc
import resource
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from storage_schemas.cache import Cache
from trainer.data.batch import ViewBatch
from trainer.data.dataset import CachedBatches
from trainer.data.loader import Batches, Share, TrainingStream
from trainer.data.order import steps
from trainer.data.schedule import make_schedule
from trainer.data.source import Source, open_source
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings, StageSettings

Recipes = Callable[..., TrainRecipe]
STEPS = 40
STAGES = (StageSettings(steps=17, proportions={"low-32": 1.0, "low-48": 2.0}), StageSettings(steps=23))
AVERAGE = AverageSettings(decay=0.9, mesa_weight=1.0, mesa_start=9)


def stream(source: Source, recipes: Recipes, workers: int, share: Share) -> TrainingStream:
    recipe = recipes(steps=STEPS, stages=STAGES, average=AVERAGE, running={"workers": workers, "read_ahead": 2})
    return TrainingStream(CachedBatches(source=source), make_schedule(source, recipe), recipe, share)


def samples(step: Batches) -> list[list[bytes]]:
    """Every view of a step, by all that the student could tell it by."""
    return [[told(part, place) for place in range(len(part.pixels))] for part in step]


def told(part: ViewBatch, place: int) -> bytes:
    windows = [part] if part.second is None else [part, part.second]
    parts = [tensor[place] for window in windows for tensor in (window.pixels, window.start, window.uniforms)]
    parts += [target.spatial[place] for target in part.targets.values()]
    return part.view_set.name.encode() + b"".join(tensor.numpy().tobytes() for tensor in parts)


def whole(shares: list[Batches]) -> list[list[bytes]]:
    """A step put together from what each rank took of it."""
    parts = zip(*[samples(share) for share in shares], strict=True)
    return [[view for views in zip(*ranks, strict=True) for view in views] for ranks in parts]


@pytest.fixture(scope="module")
def source(full_cache: Cache) -> Source:
    return open_source(full_cache)


@pytest.fixture(scope="module")
def undisturbed(source: Source, recipe_of: Recipes) -> list[list[list[bytes]]]:
    return [samples(step) for step in stream(source, recipe_of, 0, Share())]


def test_no_sample_of_an_undisturbed_run_is_like_another(undisturbed: list[list[list[bytes]]]) -> None:
    views = [view for step in undisturbed for part in step for view in part]
    assert len(undisturbed) == STEPS
    assert len(set(views)) == len(views)


def go_on(source: Source, recipe_of: Recipes, step: int, workers: int, ranks: int, length: int) -> list:
    shares = []
    for rank in range(ranks):
        flow = stream(source, recipe_of, workers, Share(rank=rank, world=ranks))
        flow.load_state_dict({"step": step})
        shares.append(list(islice(flow, length)))
    return [whole(list(each)) for each in zip(*shares, strict=True)]


DRAWN = np.random.default_rng(0).choice(STEPS - 4, size=20, replace=False).tolist()
READERS = [(0, 1), (1, 1), (2, 1), (4, 1), (0, 2), (1, 2)]
"""Reading processes, training processes."""
FEW = [(DRAWN[0], 0, 2), (DRAWN[1], 1, 1), (DRAWN[2], 2, 1)]
ALL = [
    pytest.param(step, *READERS[place % len(READERS)], marks=pytest.mark.slow)
    for place, step in enumerate(DRAWN)
    if (step, *READERS[place % len(READERS)]) not in FEW
]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # on fewer cores
@pytest.mark.parametrize(("step", "workers", "ranks"), [*FEW, *ALL])
def test_a_run_goes_on_from_any_step_with_the_very_sample_that_would_have_come(
    source: Source,
    recipe_of: Recipes,
    undisturbed: list[list[list[bytes]]],
    step: int,
    workers: int,
    ranks: int,
) -> None:
    assert go_on(source, recipe_of, step, workers, ranks, 4) == undisturbed[step : step + 4]


def test_views_are_shuffled_over_the_whole_set_not_only_within_a_shard(source: Source, recipe_of: Recipes) -> None:
    recipe = recipe_of(steps=400)
    [stage] = make_schedule(source, recipe)
    low_48 = next(view_set for view_set in stage.order.sets if view_set.name == "low-48")
    size = len(stage.order.sets[low_48].rows)
    whole_epochs = replace(stage.order, sets={low_48: stage.order.sets[low_48]}, batches={"low": size})
    places = np.array([np.argsort(step[0].rows) for step in islice(steps(whole_epochs), 400)])
    # the place of a view in one epoch says nothing about its place in the next
    ranks = torch.from_numpy(places.astype(np.float64))
    correlation = torch.corrcoef(torch.stack([ranks[:-1].flatten(), ranks[1:].flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.05
    assert np.abs(places.mean(axis=0) - (size - 1) / 2).max() < 0.6


@pytest.mark.slow
def test_memory_does_not_grow_over_epochs(source: Source, recipe_of: Recipes) -> None:
    recipe = recipe_of(steps=3000)
    flow = iter(TrainingStream(CachedBatches(source=source), make_schedule(source, recipe), recipe))

    def after(steps: int) -> int:
        for _ in range(steps):
            next(flow)
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = after(500)  # more than a hundred epochs
    assert after(2000) - before < 2 * 2**20
