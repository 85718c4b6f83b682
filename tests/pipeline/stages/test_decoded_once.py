"""An image is opened and decoded once for all of its draws, by any number of threads and in any division into tasks."""

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stage_runs import LOCAL, StageRun, contents, own, write_colours

from pipeline.config import Recipe, ViewsConfig
from pipeline.images.decoding import Picture
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.views import opening, stage
from pipeline.views.decoding_room import DecodingRoom
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.layout import detail_array, pixels_array
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store

IMAGES, DRAWS = 14, 6
RECIPE = Recipe(
    name="draws",
    views=ViewsConfig(low=(64, 96), high=(), draws=DRAWS, heldout=0.2, tokens_per_shard=80, canvas_tokens=0),
    teachers=(own("teachers.quarter_mean:QuarterMeanFixed"),),
)
FIXED = "quarter-mean-fixed"
OLD = replace(RECIPE, views=replace(RECIPE.views, order="views"))
TRAINING = replace(RECIPE, views=replace(RECIPE.views, heldout=0.0))
"""Every set has more whole shards than an image has draws."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, two of them of no use."""
    folder = write_colours(tmp_path_factory.mktemp("many") / "images", IMAGES)
    (folder / "none.jpg").write_bytes(b"")
    (folder / "odd.jpg").write_bytes(b"no image")
    return folder


def cut(recipe: Recipe, data: Path, where: Path) -> StageRun:
    """Cut canvases and details."""
    specs = [teacher_spec(choice) for choice in recipe.teachers]
    run = replace(LOCAL, max_rejected=0.5)
    make_views(Cache(store=Store(uri=str(where))), recipe, specs, str(data), run, lambda _: None)
    return StageRun(recipe=recipe, data=data, where=where, said=())


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """The cache as this machine cuts it."""
    return cut(RECIPE, data, tmp_path_factory.mktemp("made") / "cache")


def test_each_image_is_opened_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, open_picture = Counter[bytes](), opening.open_picture

    def counted(body: bytes, limits: ViewsConfig) -> Picture:
        opened[body] += 1
        return open_picture(body, limits)

    monkeypatch.setattr(opening, "open_picture", counted)
    cut(OLD, data, tmp_path / "old")
    assert min(opened.values()) > DRAWS // 2, "two draws of an image may be neighbours"
    opened.clear()
    cut(TRAINING, data, tmp_path / "cache")
    assert (len(opened), set(opened.values())) == (IMAGES + 2, {1})


def test_every_view_has_the_pixels_that_it_has_where_each_draw_is_decoded_anew(
    data: Path, made: StageRun, tmp_path: Path
) -> None:
    old = cut(OLD, data, tmp_path / "old")
    assert made.sets == old.sets == ["low-64", "low-96"]
    for name in made.sets:
        pixels, before = pixels_of_views(made, name), pixels_of_views(old, name)
        assert pixels.keys() == before.keys()
        for key, arrays in pixels.items():
            np.testing.assert_array_equal(arrays[0], before[key][0])
            np.testing.assert_array_equal(arrays[1], before[key][1])


def pixels_of_views(run: StageRun, name: str) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """Canvas and detail of each view, by image and draw."""
    view_set = ViewSet.parse(name)
    canvases, details = (run.arrays[path] for path in (pixels_array(view_set), detail_array(view_set, FIXED)))
    return {
        (row["image"], row["draw"]): (canvases[row["row"]], details[row["row"]]) for row in run.table("views", name)
    }


@pytest.mark.parametrize(("threads", "workers"), [(1, 1), (4, 1), (1, 4), (3, 100)])
def test_threads_and_tasks_do_not_change_a_byte(
    threads: int, workers: int, data: Path, made: StageRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "usable_cores", lambda: threads)
    monkeypatch.setattr(stage, "expected_workers", lambda _: workers)
    cut(RECIPE, data, tmp_path / "cache")
    assert contents(tmp_path / "cache") == contents(made.where)


def test_threads_decode_no_more_pixels_at_a_time_than_there_is_room_for() -> None:
    room, decoding, most, lock = DecodingRoom(100), 0, list[int](), threading.Lock()
    together = threading.Barrier(2)

    def decode(pixels: int) -> None:
        nonlocal decoding
        with room.taken(pixels):
            with lock:
                decoding += min(pixels, 100)
                most.append(decoding)
            if pixels == 40:
                together.wait(10)  # two of them are in the room at once
            with lock:
                decoding -= min(pixels, 100)

    threads = [threading.Thread(target=decode, args=(pixels,)) for pixels in (40, 40, 40, 40, 1000, 70, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == len(threads)
    assert 80 <= max(most) <= 100
