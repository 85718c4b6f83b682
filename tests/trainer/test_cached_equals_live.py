"""Training from a cache is training with the teachers in the step: the same losses, and the same student."""

from pathlib import Path

import pytest
from live import LiveBatches, learn, make_cache, small_recipe, write_images

from storage_schemas.cache import Cache
from trainer.config import DataSettings, HeadSettings, OptimiserSettings, RunningSettings, TrainRecipe
from trainer.dataset import CachedBatches
from trainer.source import open_source


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "data", 12)


@pytest.fixture(scope="module")
def exact(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(small_recipe("float32"), images, tmp_path_factory.mktemp("float32"))


@pytest.fixture(scope="module", params=["float16", "int8"])
def rounded(request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(small_recipe(request.param), images, tmp_path_factory.mktemp(request.param))


def student(steps: int) -> TrainRecipe:
    return TrainRecipe(
        name="tests",
        student="test_vit",
        steps=steps,
        heads=HeadSettings(width=32),
        data=DataSettings(batch_low=4, batch_high=2, window_shards=2),
        optimiser=OptimiserSettings(lr=2e-3, warmup=2),
        running=RunningSettings(accelerator="cpu"),
    )


LONG = pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])


@pytest.mark.parametrize("steps", [20, LONG])
def test_every_loss_from_a_float32_cache_is_that_of_teachers_run_in_the_step(exact: Cache, steps: int) -> None:
    source = open_source(exact)
    now = LiveBatches(source=source, choices=small_recipe("float32").teachers)
    cached, live = (learn(student(steps), source, dataset).losses for dataset in (CachedBatches(source=source), now))
    assert len(cached) == steps
    assert max(cached) > 1.05 * min(cached)
    assert cached == pytest.approx(live, rel=1e-4)


@pytest.mark.parametrize("steps", [20, LONG])
def test_a_rounded_cache_costs_less_than_a_hundredth_of_fidelity(exact: Cache, rounded: Cache, steps: int) -> None:
    sources = [open_source(cache) for cache in (exact, rounded)]
    fine, coarse = (learn(student(steps), source, CachedBatches(source=source)).scores for source in sources)
    for name, one in fine.teachers.items():
        assert coarse.teachers[name].fidelity == pytest.approx(one.fidelity, rel=0.01)
