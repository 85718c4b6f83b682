"""The student's window shifts as the teachers' windows do; runs that began before go on under their own rules."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from identities import views_identity

from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.views import UNIFORM, Shifts, draw_offset
from trainer.data.dataset import CachedBatches, heldout_requests, window_starts
from trainer.data.source import open_source
from trainer.run.train import train
from trainer.run.training_run import TrainingRun
from trainer.run_folder import identity_with_changes
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings
from trainer.settings.running import DataSettings
from trainer.settings.unrecorded import UNRECORDED, unrecorded

Recipes = Callable[..., TrainRecipe]
NORMAL = Shifts(distribution="rounded-normal", sd=0.5)
MIDDLE = Shifts(distribution="rounded-normal", sd=0.01)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[TrainingRun]:
    """The runs that `train` would fit."""
    runs: list[TrainingRun] = []
    monkeypatch.setattr("trainer.run.fit.fit", lambda run, *_args, **_settings: runs.append(run))
    return runs


@pytest.fixture
def shifted(cache_maker: Any, specs: dict[str, Any], tmp_path: Path) -> Cache:
    """A cache whose teachers' windows lie in the middle of a margin of 2."""
    maker = cache_maker(tmp_path / "cache", {"low-32": 10}, margin=2)
    settings = {"shifts": MIDDLE.distribution, "shift_sd": MIDDLE.sd}
    maker.manifest = replace(maker.manifest, identity=views_identity("tests", views=settings))
    maker.views().teacher(specs["any"]).stats(specs["any"])
    return maker.cache


@pytest.mark.parametrize(
    ("shifts", "margin", "share"),
    # C-RADIOv4's shifts have no bound: a margin of 4 leaves room for all but 1 in a million
    [(NORMAL, 4, 0.2658), (NORMAL, 2, 0.2667), (UNIFORM, 2, 1 / 9)],
)
def test_student_and_teacher_have_the_same_window_in_a_quarter_of_views_and_in_a_ninth_where_shifts_are_uniform(
    shifts: Shifts, margin: int, share: float
) -> None:
    geometry, views = CanvasGeometry(resolution=64, patch=16, margin=margin), 5_000
    student = window_starts(geometry, shifts, tuple((0, "student", 0, "low-64", row) for row in range(views)))
    teacher = [draw_offset(geometry, shifts, (0, f"{row}.jpg", 0, "offset", "t")) for row in range(views)]
    starts = np.array([(offset.row, offset.col) for offset in teacher])
    together = float((student == starts).all(axis=1).mean())
    assert abs(together - share) < 4 * (share * (1 - share) / views) ** 0.5


def test_the_students_windows_have_the_distribution_that_the_views_record(shifted: Cache) -> None:
    source = open_source(shifted)
    assert source.student_shifts == MIDDLE
    [request] = heldout_requests(source, {"low": 4}, seed=0)
    [batch] = CachedBatches(source=source)[(request,)]
    assert batch.start.unique().tolist() == [1]
    [batch] = CachedBatches(source=replace(source, student_shifts=UNIFORM))[(request,)]
    assert len(batch.start.unique()) > 1


def test_views_that_record_no_distribution_have_a_uniform_student(full_cache: Cache) -> None:
    assert open_source(full_cache).student_shifts == UNIFORM


@pytest.mark.parametrize(("asked", "drawn"), [("as-teachers", MIDDLE), ("uniform", UNIFORM)])
def test_a_run_may_ask_for_uniform_windows(
    shifted: Cache, tmp_path: Path, recipe_of: Recipes, begun: list[TrainingRun], asked: Any, drawn: Shifts
) -> None:
    recipe = recipe_of(data=DataSettings(batch_low=4, window_shards=2, student_shifts=asked))
    train(recipe, shifted.store.uri, tmp_path / "run", lambda _: None)
    assert begun[0].source.student_shifts == drawn


def old_identity(run: TrainingRun) -> dict[str, Any]:
    """What an earlier version recorded of a run."""
    identity = json.loads(json.dumps(run.identity))
    for name in UNRECORDED:
        part, _, setting = name.rpartition(".")
        del (identity["recipe"][part] if part else identity["recipe"])[setting]
    return identity


def test_a_run_that_an_earlier_version_began_goes_on_as_it_began_and_says_so(
    shifted: Cache, tmp_path: Path, recipe_of: Recipes, begun: list[TrainingRun]
) -> None:
    data = DataSettings(batch_low=4, window_shards=2)
    recipe, folder = recipe_of(data=data, average=AverageSettings(decay=0.9, ramp=False)), tmp_path / "run"
    train(recipe, shifted.store.uri, folder, lambda _: None)
    folder.mkdir()
    old, said = old_identity(begun[0]), list[str]()
    assert unrecorded(old["recipe"]) == dict(UNRECORDED)
    (folder / "run.json").write_text(json.dumps(old))
    train(recipe, shifted.store.uri, folder, said.append)
    resumed = begun[1]
    assert resumed.recipe.data.student_shifts == "uniform"
    assert resumed.source.student_shifts == UNIFORM
    assert resumed.recipe.average.ramp
    assert resumed.recipe.damp_layers == "all-linear"
    assert resumed.recipe.heads.attention_bias
    assert any(
        "goes on as it began: data.student_shifts uniform, average.ramp True, damp_layers all-linear" in line
        for line in said
    )
    assert "changes" not in identity_with_changes(resumed.folder, resumed.identity, 3)


def test_a_run_that_recorded_its_settings_is_refused_with_others(
    shifted: Cache, tmp_path: Path, recipe_of: Recipes, begun: list[TrainingRun]
) -> None:
    data, folder = DataSettings(batch_low=4, window_shards=2), tmp_path / "run"
    train(recipe_of(data=data), shifted.store.uri, folder, lambda _: None)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(begun[0].identity))
    uniform = recipe_of(data=replace(data, student_shifts="uniform"))
    with pytest.raises(IdentityError, match="as-teachers"):
        train(uniform, shifted.store.uri, folder, lambda _: None)
