"""Training from a cache is training with the teachers in the step: the same losses, and the same student."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from live import Learnt, LiveBatches, learn, make_cache, small_recipe, write_images

from storage_schemas.cache import Cache
from trainer.data.dataset import CachedBatches
from trainer.data.source import open_source
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "data", 12)


@pytest.fixture(scope="module")
def exact(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(small_recipe("float32"), images, tmp_path_factory.mktemp("float32"))


@pytest.fixture(scope="module", params=["float16", "int8"])
def rounded(
    request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Cache]:
    made = make_cache(small_recipe(request.param), images, tmp_path_factory.mktemp(request.param))
    return request.param, made


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


LONG = pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])
Learning = Callable[[int], Learnt]


@pytest.fixture(scope="module")
def from_exact(exact: Cache) -> Learning:
    """What a student has learnt from the float32 cache after so many steps; each is trained once."""
    source = open_source(exact)
    return cache(lambda steps: learn(student(steps), source, CachedBatches(source=source)))


@pytest.mark.parametrize("steps", [20, LONG])
def test_every_loss_from_a_float32_cache_is_that_of_teachers_run_in_the_step(
    exact: Cache, from_exact: Learning, steps: int
) -> None:
    source, cached = open_source(exact), from_exact(steps).losses
    live = learn(student(steps), source, LiveBatches(source=source, choices=small_recipe("float32").teachers)).losses
    assert len(cached) == steps
    assert max(cached) > 1.05 * min(cached)
    apart = max(abs(loss - other) / other for loss, other in zip(cached, live, strict=True))
    print(f"{steps} steps: losses from {max(cached):.3f} to {min(cached):.3f}, apart by at most {apart:.1e}")
    assert apart <= 1e-4


@pytest.mark.parametrize("steps", [20, LONG])
def test_a_rounded_cache_costs_less_than_a_hundredth_of_fidelity(
    from_exact: Learning, rounded: tuple[str, Cache], steps: int
) -> None:
    encoding, source = rounded[0], open_source(rounded[1])
    fine, coarse = from_exact(steps).scores, learn(student(steps), source, CachedBatches(source=source)).scores
    for name, teacher in fine.teachers.items():
        found = coarse.teachers[name].fidelity
        print(f"{encoding}, {steps} steps: {name} {found:.5f}, {found / teacher.fidelity - 1:+.1e} from float32")
        assert found == pytest.approx(teacher.fidelity, rel=0.01)
