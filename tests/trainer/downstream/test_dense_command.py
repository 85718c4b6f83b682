"""All dense tasks from the command line: drawn photographs, views cut by the pipeline, a student trained 100 steps."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from downstream.drawn_scenes import pixel_centres
from PIL import Image

from storage_schemas.cache import Cache
from trainer.__main__ import main as trainer_main
from trainer.downstream.results import scores_in
from trainer.run.train import train
from trainer.settings.config import TrainRecipe

HEIGHT, WIDTH = 96, 144
COLOURS = ((90, 140, 90), (220, 60, 50), (60, 80, 230))
"""Of the ground, the ball and the box."""
SETS = ("low-64", "low-96")


@dataclass(frozen=True)
class Drawing:
    """A ball and a box on a wall that runs away to the right."""

    number: int

    @property
    def key(self) -> str:
        return f"{'val' if self.number % 3 == 0 else 'train'}/{self.number:02}.png"

    @property
    def ball(self) -> tuple[float, float, float]:
        """X and y of the centre, and radius."""
        x, y, radius = np.random.default_rng([self.number, 0]).uniform([30, 30, 16], [60, 66, 24])
        return x, y, radius

    @property
    def box(self) -> tuple[float, float, float]:
        """X and y of the centre, and half a side."""
        x, y, half = np.random.default_rng([self.number, 1]).uniform([100, 36, 14], [116, 60, 22])
        return x, y, half

    def masks(self) -> np.ndarray:
        x, y = pixel_centres((HEIGHT, WIDTH))
        classes = np.zeros((HEIGHT, WIDTH), np.uint8)
        classes[np.hypot(x - self.ball[0], y - self.ball[1]) < self.ball[2]] = 1
        classes[np.maximum(abs(x - self.box[0]), abs(y - self.box[1])) < self.box[2]] = 2
        return classes

    def depth(self) -> np.ndarray:
        """The wall from 3 to 6 m, the ball at 2 m, the box at 1 m."""
        x, _ = pixel_centres((HEIGHT, WIDTH))
        return np.choose(self.masks(), [3 + 3 * x / WIDTH, np.full_like(x, 2.0), np.full_like(x, 1.0)])

    def normals(self) -> np.ndarray:
        """The wall faces left, the ball is round, the box faces the camera."""
        x, y = pixel_centres((HEIGHT, WIDTH))
        u, v = (x - self.ball[0]) / self.ball[2], (y - self.ball[1]) / self.ball[2]
        round_ = np.stack([u, v, np.sqrt(np.maximum(0, 1 - u**2 - v**2))], axis=-1)
        wall, front = np.array([-0.6, 0, 0.8]), np.array([0, 0, 1.0])
        return np.select([(self.masks() == value)[..., None] for value in range(3)], [wall, round_, front])

    def picture(self) -> np.ndarray:
        noise = np.random.default_rng([self.number, 2]).normal(0, 6, (HEIGHT, WIDTH, 1))
        light = 0.6 + 0.4 * np.abs(self.normals()[..., 2:])
        return np.clip(np.array(COLOURS)[self.masks()] * light + noise, 0, 255).astype(np.uint8)


DRAWINGS = [Drawing(number) for number in range(24)]


def draw(folder: Path) -> list[str]:
    """Write images, maps and keypoints; return the options of `evaluate` that name them."""
    for drawing in DRAWINGS:
        for name in ("images", "masks", "depth", "normals"):
            (folder / name / drawing.key).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawing.picture()).save(folder / "images" / drawing.key)
        Image.fromarray(drawing.masks()).save(folder / "masks" / drawing.key)
        Image.fromarray(np.round(drawing.depth() * 1000).astype(np.uint16)).save(folder / "depth" / drawing.key)
        np.save((folder / "normals" / drawing.key).with_suffix(".npy"), drawing.normals())
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        sides = [f"target_{side}" for side in ("left", "top", "right", "bottom")]
        writer.writerow(["source", "target", "source_x", "source_y", "target_x", "target_y", *sides])
        for source, target in pairwise(DRAWINGS):
            for a, (x, y, r) in ((source.ball, target.ball), (source.box, target.box)):
                ends = [source.key, target.key, a[0] - 0.5, a[1] - 0.5, x - 0.5, y - 0.5]
                writer.writerow([*ends, x - r, y - r, x + r, y + r])
    return [
        *("--segmentation.masks", str(folder / "masks"), "--segmentation.classes", "3"),
        *("--depth.maps", str(folder / "depth"), "--depth.format", "png", "--depth.unit", "0.001"),
        *("--normals.maps", str(folder / "normals"), "--dense.steps", "150", "--dense.learning-rate", "0.03"),
        *("--correspondence.pairs", str(folder / "pairs.csv"), "--correspondence.alphas", "0.5"),
        *("--correspondence.pixels", "12", "--merging.ratios", "0.5", "--merging.stride", "2"),
        *("--merging.tasks", "segmentation", "correspondence"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_student_is_scored_on_all_dense_tasks(
    tmp_path: Path,
    full_cache: Cache,
    recipe_of: Callable[..., TrainRecipe],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipeline.__main__ import main as pipeline_main

    inputs, cache, run = draw(tmp_path), tmp_path / "cache", tmp_path / "run"
    cut = ["--views.placing", "windows", "--views.draws", "2", "--views.max-aspect", "2", "--views.low", "64", "96"]
    views = ["views", "--recipe", "evaluation", "--run.executor", "local", *cut]
    assert pipeline_main([*views, "--cache", str(cache), "--data", str(tmp_path / "images")]) == 0
    train(recipe_of(steps=100), full_cache.store.uri, run, lambda _: None)
    tasks = ["segmentation", "depth", "normals", "correspondence", "token-merging"]
    student = ["evaluate", "--student", str(run), "--cache", str(cache)]
    command = [*student, "--tasks", *tasks, "scale", *inputs]
    assert trainer_main(command) == 0
    scores = {(score.task, score.view_set): score for score in scores_in(run / "evaluation.json")}
    assert set(scores) == {*((task, name) for task in tasks for name in SETS), ("scale", "low-96")}
    assert 0.5 < scores["scale", "low-96"].scores["cosine"] < 1
    assert 0 < scores["scale", "low-96"].scores["scale_variance"] < 1
    assert scores["scale", "low-96"].counts == {"views": 48, "smallest": "low-64", "resolutions": 2}
    tests = [drawing for drawing in DRAWINGS if drawing.key.startswith("val")]
    ground = np.mean([drawing.masks() == 0 for drawing in tests])
    depths = np.array([drawing.depth() for drawing in tests])
    for name in SETS:
        segmentation, merging = scores["segmentation", name], scores["token-merging", name]
        assert segmentation.scores["mIoU"] > 0.6 > ground / 3  # the latter where everything is called ground
        assert segmentation.counts["pixels_share"] == 1
        assert segmentation.counts["test_images"] == len(tests) == 8
        assert scores["depth", name].scores["rmse"] < 0.8 * depths.std()
        assert scores["normals", name].scores["mean_angle"] < 25
        assert scores["correspondence", name].scores["PCK@0.5"] > 0.5
        assert scores["correspondence", name].counts["keypoints"] == 2 * (len(DRAWINGS) - 1)
        assert 0 < merging.scores["error@0.5"] < 0.5
        assert merging.scores["segmentation_mIoU@0"] == segmentation.scores["mIoU"]
        assert merging.scores["segmentation_mIoU@0.5"] > 0.5
    capsys.readouterr()
    assert trainer_main([*student, "--tasks", "scale", "--sets", "low-64"]) == 2
    assert "scale: low-64 has nothing to be compared with" in capsys.readouterr().err
    before = (run / "evaluation.json").read_bytes()
    assert trainer_main([*command, "--json"]) == 0
    assert (run / "evaluation.json").read_bytes() == before
    printed = capsys.readouterr().out
    shown = json.loads(printed[printed.index("[\n") :])
    assert {(score["task"], score["view_set"]) for score in shown} == set(scores)
