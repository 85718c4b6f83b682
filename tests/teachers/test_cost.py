"""The cost of one input, against products counted by hand, and against PyTorch's own counter."""

import subprocess
import sys
from pathlib import Path

import pytest

from storage_schemas.format.errors import SettingError
from teachers.build import family_of
from teachers.catalogue import CATALOGUE
from teachers.cost import multiply_adds, tflop_per_input
from teachers.counted_cost import flop_of

ROOT = Path(__file__).parents[2]
SIDES = (64, 432, 1152)
"""Inputs (pixels) of models that take any size."""


def block(tokens, channels, hidden, seen_by_each):
    """Multiply-adds of one transformer block: projections, attention over `seen_by_each` tokens, MLP."""
    return tokens * (4 * channels**2 + 2 * seen_by_each * channels + 2 * channels * hidden)


@pytest.mark.parametrize("side", [64, 256])
def test_dinov3(side):
    patches = (side // 16) ** 2
    tokens = patches + 5
    products = patches * 3 * 16**2 * 96 + 2 * block(tokens, 96, 384, tokens)
    assert tflop_per_input("dinov3-tiny", side) == pytest.approx(2 * products / 1e12, rel=1e-9)


def test_siglip2_with_its_pooling():
    patches = 144
    pooling = patches * 80 * 160 + 2 * patches * 80 + 80 * 80 * 2 + 2 * 80 * 320
    products = patches * 3 * 16**2 * 80 + 2 * block(patches, 80, 320, patches) + pooling
    assert tflop_per_input("siglip2-tiny", 192) == pytest.approx(2 * products / 1e12, rel=1e-9)


def test_sam3_with_one_windowed_and_one_global_block():
    patches = 576
    products = patches * 3 * 14**2 * 64 + block(patches, 64, 128, 36) + block(patches, 64, 128, patches)
    assert tflop_per_input("sam3-tiny", 336) == pytest.approx(2 * products / 1e12, rel=1e-9)


def test_the_large_models_cost_what_was_measured():
    assert tflop_per_input("siglip2-g-384", 384) == pytest.approx(1.39, abs=0.005)
    assert tflop_per_input("sam3", 1008) == pytest.approx(5.40, abs=0.005)
    assert tflop_per_input("dinov3-7b", 256) == pytest.approx(3.55, abs=0.005)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_model_of_the_catalogue_costs_exactly_what_pytorch_counts(name):
    entry = CATALOGUE[name]
    family = family_of(entry)
    teacher = family.teacher(spec=entry.spec, network=family.skeleton(entry), device="meta", precision="fp32")
    for side in SIDES if entry.spec.size_rule == "any" else (entry.spec.native,):
        assert 2 * multiply_adds(entry, (side // entry.spec.patch) ** 2) == flop_of(teacher, side)


def test_costs_of_the_catalogue_need_no_torch():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from teachers.cost import tflop_per_input\n"
        "print(tflop_per_input('sam3', 1008))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) == tflop_per_input("sam3", 1008)


def test_a_teacher_of_means_costs_nothing():
    assert tflop_per_input("teachers.quarter_mean:QuarterMean", 64) == 0


def test_a_size_that_the_teacher_does_not_take_has_no_cost():
    with pytest.raises(SettingError, match="input size: 100 × 100 px"):
        tflop_per_input("dinov3-tiny", 100)
