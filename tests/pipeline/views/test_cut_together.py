"""Shards are cut together whose views come from the same images; how they are divided changes no view."""

import pytest

from pipeline.config import ViewsConfig
from pipeline.images.listing import SourceImage
from pipeline.views import tasks as tasks_module
from pipeline.views.sampling import draw_views, set_manifest
from pipeline.views.shard_task import CutTask, ShardTask
from pipeline.views.tasks import cut_together

CONFIG = ViewsConfig(
    low=(64, 96, 128), high=(192,), high_share=0.2, draws=9, heldout=0.1, tokens_per_shard=200, canvas_tokens=0
)
IMAGES = 600


def shards_of(config: ViewsConfig = CONFIG, count: int = IMAGES) -> list[ShardTask]:
    """Every shard of every set that some images give."""
    images = [SourceImage(key=f"{number:05d}.jpg", uri=f"file:///{number:05d}.jpg") for number in range(count)]
    shards = []
    for view_set, views in draw_views(images, config).items():
        manifest = set_manifest(view_set, [len(views)], config)
        for shard in range(manifest.grid.shards):
            drawn = manifest.grid.drawn(shard)
            shards.append(
                ShardTask(
                    view_set=view_set,
                    manifest=manifest,
                    shard=shard,
                    views=tuple(views[drawn.start : drawn.stop]),
                    identity="",
                    canvases=True,
                    details=(),
                )
            )
    return shards


def decoded(tasks: list[CutTask]) -> int:
    """How often an image is decoded, over all tasks."""
    return sum(len({view.image.key for shard in task.shards for view in shard.views}) for task in tasks)


def names(tasks: list[CutTask]) -> list[tuple[str, int]]:
    """The shards of all tasks, sorted."""
    return sorted((shard.view_set.name, shard.shard) for task in tasks for shard in task.shards)


SHARDS = shards_of()


@pytest.mark.parametrize("workers", [1, 30, 10_000])
def test_every_shard_is_cut_once(workers: int) -> None:
    tasks = cut_together(SHARDS, CONFIG, workers)
    assert names(tasks) == sorted((shard.view_set.name, shard.shard) for shard in SHARDS)
    assert len(tasks) >= min(workers, len(SHARDS))


def test_an_image_is_decoded_hardly_more_than_once() -> None:
    tasks = cut_together(SHARDS, CONFIG, 1)
    assert len(tasks) > 3
    assert decoded(tasks) < 1.5 * IMAGES
    assert decoded([CutTask(shards=(shard,)) for shard in SHARDS]) > 8 * IMAGES


def test_a_task_opens_no_more_arrays_at_a_time_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "MOST_OPEN", 12)
    tasks = cut_together(SHARDS, CONFIG, 1)
    assert names(tasks) == sorted((shard.view_set.name, shard.shard) for shard in SHARDS)
    places = {key: place for place, key in enumerate(in_order())}
    for task in tasks:
        spans = [[places[view.image.key] for view in shard.views] for shard in task.shards]
        for place in range(0, IMAGES, 7):
            assert sum(min(span) <= place <= max(span) for span in spans) <= 12
    assert decoded(tasks) < 4 * IMAGES


def in_order() -> list[str]:
    """Keys of the images in the order in which they are walked."""
    ranks = {view.image.key: tasks_module.image_rank(view, CONFIG.seed) for shard in SHARDS for view in shard.views}
    return sorted(ranks, key=lambda key: ranks[key])


def test_shards_that_are_left_of_an_interrupted_run_are_cut_together_too() -> None:
    left = [shard for number, shard in enumerate(SHARDS) if number % 3]
    tasks = cut_together(left, CONFIG, 1)
    assert names(tasks) == sorted((shard.view_set.name, shard.shard) for shard in left)
    assert decoded(tasks) < 2 * IMAGES


@pytest.mark.parametrize("settings", [{"order": "views"}, {"draws": 1}])
def test_each_shard_is_a_task_where_there_is_nothing_to_share(settings: dict[str, object]) -> None:
    config = ViewsConfig(low=(64,), high=(), tokens_per_shard=200, canvas_tokens=0, **settings)  # type: ignore[arg-type]
    shards = shards_of(config, 50)
    assert [task.shards for task in cut_together(shards, config, 1)] == [(shard,) for shard in shards]
