"""What shifts are for: noise that stands at fixed places of a teacher's maps does not become the student's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import pytest
import torch
from live import learn, make_cache, small_recipe, write_images
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.batch import TeacherTargets, ViewBatch, unit_pixels
from trainer.data.dataset import BatchRequest, CachedBatches
from trainer.data.source import Source, open_source
from trainer.learning.module import Distillation
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings

RESOLUTION = 128
STEPS = 300
VIEWS = {"low": (RESOLUTION,), "high": (), "draws": 6, "heldout": 0.2, "flip": 0.5}


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patterned(Dataset):
    """Batches of a cache whose teachers have a fixed pattern on their maps."""

    cached: CachedBatches
    patterns: Mapping[str, Tensor]
    """By teacher: what is added to every one of its maps (PHI-S units)."""

    def __getitem__(self, requests: tuple[BatchRequest, ...]) -> list[ViewBatch]:
        """Read one batch for each request."""
        return [
            replace(batch, targets={name: self._spoilt(name, target) for name, target in batch.targets.items()})
            for batch in self.cached[requests]
        ]

    def _spoilt(self, name: str, target: TeacherTargets) -> TeacherTargets:
        return replace(target, spatial=target.spatial.float() + self.patterns[name])


def pattern_share(module: Distillation, source: Source, patterns: Mapping[str, Tensor]) -> dict[str, float]:
    """How much of each teacher's pattern the student's mean feature map holds: 1 for all of it, 0 for none.

    ⟨m, g⟩ / ⟨g, g⟩, m the mean over views of the student's maps in the teacher's space, and g the pattern.
    """
    [view_set], module = list(source.sets), module.eval()
    requests = []
    for split, ranges in source.sets[view_set].rows.items():
        keys = tuple((0, "pattern", row) for row in ranges.tolist())
        requests.append(BatchRequest(view_set=view_set, split=split, rows=ranges[:], window_keys=keys))
    batches = CachedBatches(source=source)[tuple(requests)]
    with torch.no_grad():
        output = module.finished(unit_pixels(torch.cat([batch.pixels for batch in batches])), list(patterns))
    shares = {}
    for name, pattern in patterns.items():
        mean = output.spatial[name].mean(dim=0)
        mean = mean - mean.mean(dim=(0, 1))
        shares[name] = float((mean * pattern).sum() / pattern.square().sum())
    return shares


def learn_patterns(folder: Path, images: Path, margin: int, teachers: Sequence[str]) -> dict[str, float]:
    """Train on teachers with patterns, windows moving by so many patches, and say what the student took over."""
    source = open_source(make_cache(small_recipe("float32", teachers, margin=margin, **VIEWS), images, folder))
    [set_source] = source.sets.values()
    random = torch.Generator().manual_seed(0)
    patterns = {}
    for name, seen in set_source.features.items():
        direction = torch.randn(source.teachers[name].manifest.spec.dim, generator=random)
        strength = torch.randint(0, 2, (seen.tokens, seen.tokens, 1), generator=random) * 2.0 - 1
        patterns[name] = (strength - strength.mean()) * direction
    recipe = TrainRecipe(
        name="tests",
        student="test_vit",
        image_size=RESOLUTION,
        steps=STEPS,
        heads=HeadSettings(width=64),
        data=DataSettings(batch_low=8, shifts=bool(margin)),
        optimiser=OptimiserSettings(lr=4e-3, warmup=5),
        running=RunningSettings(accelerator="cpu"),
    )
    learnt = learn(recipe, source, Patterned(cached=CachedBatches(source=source), patterns=patterns))
    return pattern_share(learnt.module, source, patterns)


@pytest.mark.slow
@pytest.mark.parametrize("teachers", [("dinov3",), ("dinov3", "sam3")])
def test_with_shifts_the_students_mean_map_holds_far_less_of_its_teachers_fixed_patterns(
    tmp_path: Path, teachers: tuple[str, ...]
) -> None:
    images = write_images(tmp_path / "images", 10)
    moved, still = (learn_patterns(tmp_path / str(margin), images, margin, teachers) for margin in (2, 0))
    for name in teachers:
        assert still[name] > 0.5
        assert abs(moved[name]) < 0.1
