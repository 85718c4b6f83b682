"""Tasks with labels are measured on held-out views while a student learns, and change nothing that it learns."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ANY, CacheMaker, canvas

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import AbstractStillhouseError
from storage_schemas.format.views import ViewSet
from trainer.data.batch import unit_pixels
from trainer.data.source import open_source
from trainer.data.view_dataset import ViewDataset
from trainer.downstream.labels import label_views
from trainer.downstream.options import KnnSettings
from trainer.run.metrics import start_metrics
from trainer.run.train import train
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe

COUNT = 120


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return CacheMaker(tmp_path_factory.mktemp("cache"), {"low-32": COUNT}).views().teacher(ANY).stats(ANY).cache


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> str:
    path, lines = tmp_path_factory.mktemp("labels") / "labels.csv", ["key,label"]
    for row in range(COUNT):
        red, green, _ = canvas(ViewSet.parse("low-32"), row, 48).mean(axis=(0, 1))
        lines.append(f"image {row},{'red' if red > green else 'green'}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def _three_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small cache has few held-out views."""
    monkeypatch.setattr("trainer.downstream.during_training.KNN", KnnSettings(k=3))


@pytest.mark.slow
@pytest.mark.usefixtures("_three_neighbours")
def test_tasks_are_measured_on_the_way_and_change_nothing_that_is_learnt(
    cache: Cache, labels: str, tmp_path: Path, recipe_of: Callable[..., TrainRecipe]
) -> None:
    def run(name: str, **running: Any) -> Path:
        recipe = recipe_of(steps=2, running={"evaluate": False, **running})
        return train(recipe, cache.store.uri, tmp_path / name, lambda _: None).path

    measured = run("measured", labels=labels, tasks_every=1)
    tasks = json.loads((measured / "metrics.json").read_text())["tasks"]
    assert [found["step"] for found in tasks] == [0, 1, 2]
    assert all(set(found["scores"]) == {"knn/low-32", "linear/low-32"} for found in tasks)
    assert tasks[-1]["scores"]["knn/low-32"] == pytest.approx(own_knn(measured, cache, labels), abs=1e-6)
    with (measured / "history.csv").open() as file:
        history = {int(row["step"]): row for row in csv.DictReader(file) if row["knn/low-32"]}
    assert {step: float(row["linear/low-32"]) for step, row in history.items()} == {
        found["step"]: found["scores"]["linear/low-32"] for found in tasks
    }
    plain = run("plain")
    assert (plain / "student.safetensors").read_bytes() == (measured / "student.safetensors").read_bytes()
    assert "tasks" not in json.loads((plain / "metrics.json").read_text())


def own_knn(run: Path, cache: Cache, labels: str) -> float:
    """The vote of three neighbours by a program of its own, on the exported student."""
    source = open_source(cache)
    views, student = ViewDataset(source, "low-32", "heldout"), trainer.load(run)
    [batch] = views.__getitems__(range(len(views)))
    with torch.no_grad():
        summary = student(unit_pixels(batch.pixels)).student.summaries[:, 0].double()
    keys = [f"image {row}" for row in views.rows.tolist()]
    labelled = label_views(keys, labels, "hash", 0.5)
    units, right = torch.nn.functional.normalize(summary).numpy(), []
    for query in np.flatnonzero(labelled.is_test):
        bank = np.flatnonzero(~labelled.is_test)
        near = bank[np.argsort(-(units[bank] @ units[query]))[:3]]
        weights = np.exp(units[near] @ units[query] / 0.07)
        votes = [weights[labelled.classes[near] == name].sum() for name in range(2)]
        right.append(int(np.argmax(votes)) == labelled.classes[query])
    return float(np.mean(right))


def test_labels_of_which_nothing_could_be_measured_are_refused_before_training(
    cache: Cache, labels: str, tmp_path: Path, recipe_of: Callable[..., TrainRecipe]
) -> None:
    (tmp_path / "few.csv").write_text("key,label\nimage 119,red\n")
    for given, said in (
        (str(tmp_path / "few.csv"), "23 of 24 images have no label"),
        (labels, r"low-32: \d+ held-out views are in the training part; nearest neighbours need 20"),
        ("nowhere.csv", "there is no such file"),
    ):
        recipe = recipe_of(steps=2, running={"labels": given})
        with pytest.raises(AbstractStillhouseError, match=said):
            train(recipe, cache.store.uri, tmp_path / "run", lambda _: None)
        assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_run_that_resumes_keeps_the_scores_up_to_its_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    tasks = [{"step": step, "scores": {"knn/low-32": 0.5}} for step in (0, 2, 4)]
    run.metrics.write_text(json.dumps({"evaluations": [], "tasks": tasks}))
    start_metrics(run, {"student": "s"}, 2)
    assert json.loads(run.metrics.read_text())["tasks"] == tasks[:2]
    start_metrics(run, {"student": "s"}, 0)
    assert "tasks" not in json.loads(run.metrics.read_text())
