"""A trained network from end to end: its spectrum, its dispersion, and how well a small student learns from it.

    python -m tests.benchmarks.real_network [--draws 16 --steps 300]

EfficientNet-Lite0 with its ImageNet weights, the only trained network that comes inside a package, runs over
scikit-image's photographs; a small ConvNeXt learns from the cache. Needs `stillhouse[pretrained,demo]`.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pipeline.config import CalibrationConfig, Recipe, RunConfig, TeacherChoice, ViewsConfig
from pipeline.features.stage import make_features
from pipeline.recipes.demo_images import copy_photographs
from pipeline.stats.facts import StatsFacts, measured_facts
from pipeline.stats.stage import measure_teachers
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store
from trainer.run.train import train
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings

SOURCE = "tests.benchmarks.lite0:Lite0"
TOLERANCE = 0.2
"""Residual of PHI-S from which a view set counts as off, as in `make stats`."""


@final
@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run gives."""

    facts: StatsFacts
    scale: float
    """φ of PHI-S (raw teacher units)."""
    scores: list[dict[str, Any]]
    """The student's scores on held-out views: before the first step, and after the last."""


def run(folder: Path, *, draws: int, steps: int) -> Figures:
    """Cut views of the photographs, run the teacher over them, and train a student.

    Args:
        folder: for photographs, cache and run.
        draws: views of each photograph.
        steps: of training.
    """
    copy_photographs(str(folder / "photographs"))
    choice = TeacherChoice(name="lite0", source=SOURCE, weights="own")
    views = ViewsConfig(low=(128, 192, 256), high=(), draws=draws, heldout=0.2, tokens_per_shard=4608, canvas_tokens=0)
    recipe = Recipe(
        name="real-network", views=views, teachers=(choice,), calibration=CalibrationConfig(tokens_per_channel=10)
    )
    cache, local = Cache(store=Store(uri=str(folder / "cache"))), RunConfig(executor="local")
    make_features(cache, recipe, choice, str(folder / "photographs"), local, print)
    measured = measure_teachers(cache, ["lite0"], local, print)
    facts, scales = measured_facts(cache, measured.values(), TOLERANCE)
    student = TrainRecipe(
        name="real-network",
        student="test_convnext",
        steps=steps,
        heads=HeadSettings(width=256),
        data=DataSettings(batch_low=16),
        optimiser=OptimiserSettings(lr=3e-3, warmup=min(30, steps // 4)),
        running=RunningSettings(log_every=20, evaluate_every=max(steps // 3, 1), checkpoint_every=steps),
    )
    trained = train(student, str(folder / "cache"), folder / "run")
    evaluations = json.loads(trained.metrics.read_text())["evaluations"]
    return Figures(
        facts=facts["lite0"], scale=scales["lite0"], scores=[told["teachers"]["lite0"] for told in evaluations]
    )


def main() -> None:
    """Run, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--steps", type=int, default=300)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), draws=settings.draws, steps=settings.steps)
    print(figures.facts)
    print(f"φ = {figures.scale:.4g}")
    for scores in figures.scores:
        print(json.dumps(scores))


if __name__ == "__main__":
    main()
