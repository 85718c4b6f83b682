"""The stream of batches: the same whoever reads, and from wherever it starts."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.row_ranges import row_ranges
from trainer.__main__ import main
from trainer.data.dataset import CachedBatches
from trainer.data.loader import Batches, Share, TrainingStream
from trainer.data.schedule import make_schedule
from trainer.data.source import Source, open_source
from trainer.settings.config import TrainRecipe
from trainer.settings.running import DataSettings

Recipes = Callable[..., TrainRecipe]


def stream(source: Source, recipe: TrainRecipe, rank: int = 0, world: int = 1) -> TrainingStream:
    dataset, share = CachedBatches(source=source), Share(rank=rank, world=world)
    return TrainingStream(dataset, make_schedule(source, recipe), recipe, share)


def plain(step: Batches) -> list[tuple[Any, ...]]:
    """What tells one step from any other."""
    return [
        (
            part.view_set.name,
            part.start.flatten().tolist(),
            part.pixels.double().sum(dim=(1, 2, 3)).tolist(),
            [
                (name, target.start.tolist(), target.spatial.double().sum().item())
                for name, target in part.targets.items()
            ],
        )
        for part in step
    ]


@pytest.fixture(scope="module")
def source(full_cache: Cache) -> Source:
    return open_source(full_cache)


def test_a_stream_goes_on_from_a_saved_state_with_the_very_next_batch(source: Source, recipe_of: Recipes) -> None:
    recipe = recipe_of(steps=9)
    undisturbed = [plain(step) for step in stream(source, recipe)]
    assert len(undisturbed) == 9
    first = stream(source, recipe)
    before = [plain(step) for _, step in zip(range(4), first, strict=False)]
    second = stream(source, recipe)
    second.load_state_dict(first.state_dict())
    assert first.state_dict() == {"step": 4}
    assert [*before, *map(plain, second)] == undisturbed


def test_reading_processes_change_neither_the_batches_nor_their_order(source: Source, recipe_of: Recipes) -> None:
    alone, helped = recipe_of(steps=5), recipe_of(steps=5, running={"workers": 2, "read_ahead": 2})
    assert [plain(step) for step in stream(source, helped)] == [plain(step) for step in stream(source, alone)]


@pytest.fixture
def damaged(tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]) -> Cache:
    """A cache in which every view of one shard of features has a flipped bit."""
    maker = cache_maker(tmp_path, {"low-32": 9}).views().teacher(specs["any"]).stats(specs["any"])
    shard = tmp_path / "features.zarr/teachers/any/low-32/spatial/c/0/0/0/0"
    body = bytearray(shard.read_bytes())
    body[: len(body) - 100] = bytes(value ^ 1 for value in body[: len(body) - 100])
    shard.write_bytes(body)
    return maker.cache


def test_damage_met_by_a_reading_process_ends_the_command_in_one_message(
    damaged: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--student test_vit --steps 2 --data.batch-low 4 --optimiser.warmup 1 --running.accelerator cpu"
    command = f"train --recipe small --cache {damaged.store.uri} --runs {tmp_path / 'runs'} {small} --running.workers 1"
    assert main([*command.split(), "--running.loggers", "csv"]) == 2
    said = capsys.readouterr().err
    told = r"teachers/any/low-32/spatial shard 0 row \d: its CRC32C does not match its bytes\n"
    assert re.search(rf"^error: chunk is damaged:\n  {told}\Z", said, re.MULTILINE), said
    assert "Traceback" not in said


def test_ranks_share_every_step_and_lose_none_of_it(source: Source, recipe_of: Recipes) -> None:
    recipe = recipe_of(steps=4)
    whole = list(stream(source, recipe))
    shares = [list(stream(source, recipe, rank, 2)) for rank in (0, 1)]
    for step, first, second in zip(whole, *shares, strict=True):
        for part, even, other in zip(step, first, second, strict=True):
            assert torch.equal(part.pixels[0::2], even.pixels)
            assert torch.equal(part.pixels[1::2], other.pixels)


def test_the_wait_for_data_is_counted_and_taken_once(source: Source, recipe_of: Recipes) -> None:
    watched = stream(source, recipe_of(steps=2))
    next(iter(watched))
    assert watched.take_wait() > 0
    assert watched.take_wait() == 0


def test_sets_are_drawn_as_often_as_they_have_training_views_unless_told(source: Source, recipe_of: Recipes) -> None:
    [stage] = make_schedule(source, recipe_of())
    assert {view_set.name: found.proportion for view_set, found in stage.order.sets.items()} == {
        "high-64": 7.0,
        "low-32": 8.0,
        "low-48": 11.0,
    }
    [stage] = make_schedule(source, recipe_of(data=DataSettings(proportions={"low-32": 3.0})))
    assert {view_set.name: found.proportion for view_set, found in stage.order.sets.items()} == {"low-32": 3.0}


def test_a_set_without_training_views_is_refused(source: Source, recipe_of: Recipes) -> None:
    view_set, set_source = next(iter(source.sets.items()))
    held: Any = {"train": row_ranges([], []), "heldout": set_source.rows["heldout"]}
    with pytest.raises(SettingError) as refusal:
        make_schedule(replace(source, sets={**source.sets, view_set: replace(set_source, rows=held)}), recipe_of())
    assert str(refusal.value) == (
        "view sets cannot be used:\n"
        "  high-64: has no training view (leave it out with data.proportions, or cut more views)"
    )
