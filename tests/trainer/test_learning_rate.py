"""The learning rate rises in a line and falls in a cosine; only matrices decay."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from timm.optim import Lamb

from trainer.learning.layer_rates import highest_rates
from trainer.learning.learning_rate import (
    decaying,
    learning_rate_factor,
    make_optimiser,
    optimiser_groups,
    parameter_groups,
    rate_factor,
)
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings, StageSettings
from trainer.settings.student import HeadSettings
from trainer.student.model import DistilledModel, TeacherShape
from trainer.student.shape import StudentShape
from trainer.student.student import Student


def factors(steps: int, warmup: int) -> list[float]:
    return [learning_rate_factor(step, steps=steps, warmup=warmup) for step in range(steps)]


def test_the_rate_rises_in_equal_steps_and_then_falls_to_almost_nothing() -> None:
    rates = factors(100, 4)
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert all(later < earlier for earlier, later in pairwise(rates[4:]))
    assert 0 < rates[-1] < 0.001
    assert rates[52] == pytest.approx(0.5)  # halfway between the 4th and the 100th


def test_without_a_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert factors(10, 0)[0] == 1
    assert factors(10, 0)[5] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)


def test_a_warm_up_longer_than_the_run_never_reaches_the_whole_rate() -> None:
    assert factors(3, 9) == [0.1, 0.2, 0.3]


def test_matrices_and_kernels_decay_and_nothing_else() -> None:
    shape, teachers = (
        StudentShape(channels=64, summary_channels=64, tokens={}),
        {"a": TeacherShape(dim=3, summary_dim=2)},
    )
    model = DistilledModel(Student("test_vit"), shape, teachers, HeadSettings(width=8))
    decay = decaying(model, model.student.backbone)
    settings = OptimiserSettings(weight_decay=0.3)
    groups = parameter_groups(model, decay, highest_rates(model, (), settings), settings)
    decayed, kept = optimiser_groups(model, groups, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    assert decayed.keys() == kept.keys() == {"params", "weight_decay"}
    in_decayed, in_kept = ({names[id(parameter)] for parameter in group["params"]} for group in (decayed, kept))
    assert in_decayed | in_kept == set(names.values())
    assert not in_decayed & in_kept
    assert {"heads.a_spatial.adaptor.first.weight", "student.backbone.blocks.0.attn.qkv.weight"} <= in_decayed
    exempt = {"student.backbone.pos_embed", "student.backbone.cls_token", "heads.a_spatial.adaptor.first.bias"}
    assert exempt <= in_kept
    assert {name for name in in_decayed if name.endswith("bias") or ".norm" in name} == set()


@pytest.mark.parametrize(("kind", "made"), [("adamw", torch.optim.AdamW), ("lamb", Lamb)])
def test_either_optimiser_takes_the_settings_and_a_known_step(kind: Any, made: type) -> None:
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    settings = OptimiserSettings(kind=kind, lr=0.1, weight_decay=0.0, beta1=0.9, beta2=0.99)
    optimiser = make_optimiser([{"params": [weight], "weight_decay": 0.0}], settings)
    assert type(optimiser) is made
    weight.grad = torch.tensor([[10.0, -20.0]])
    optimiser.step()
    # after one step both moments give the gradient's sign
    # and timm's LAMB does not scale the step of a group that does not decay
    assert weight.detach().flatten().tolist() == pytest.approx([2.9, 4.1], rel=1e-4)


@pytest.mark.parametrize("kind", ["adamw", "lamb"])
def test_the_second_step_weighs_both_gradients_as_the_betas_say(kind: Any) -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    settings = OptimiserSettings(kind=kind, lr=0.1, weight_decay=0.0, beta1=0.7, beta2=0.9)
    optimiser = make_optimiser([{"params": [weight], "weight_decay": 0.0}], settings)
    for gradient in (1.0, 3.0):
        weight.grad = torch.tensor([gradient])
        optimiser.step()
    mean = (0.7 * 0.3 * 1 + 0.3 * 3) / (1 - 0.7**2)
    square = (0.9 * 0.1 * 1 + 0.1 * 9) / (1 - 0.9**2)
    assert weight.item() == pytest.approx(2.9 - 0.1 * mean / math.sqrt(square), rel=1e-5)


def test_the_rate_rises_and_falls_anew_in_each_stage(recipe_of: Callable[..., TrainRecipe]) -> None:
    recipe = recipe_of(
        steps=30,
        stages=(StageSettings(steps=10), StageSettings(steps=20)),
        optimiser=OptimiserSettings(lr=1.0, warmup=4),
    )
    found = [rate_factor(recipe, step) for step in range(30)]
    assert found == factors(10, 4) + factors(20, 4)


def test_lamb_scales_a_decaying_step_by_the_weights_length_over_the_steps_and_leaves_clipping_to_the_run() -> None:
    weight = torch.nn.Parameter(torch.tensor([[30.0, 40.0]]))
    settings = OptimiserSettings(kind="lamb", lr=0.1, weight_decay=0.01)
    optimiser = make_optimiser([{"params": [weight], "weight_decay": 0.01}], settings)
    weight.grad = torch.tensor([[1e4, 1e4]])
    optimiser.step()
    step = [1 + 0.01 * 30, 1 + 0.01 * 40]
    trust = 50 / math.hypot(*step)
    expected = [30 - 0.1 * trust * step[0], 40 - 0.1 * trust * step[1]]
    assert weight.detach().flatten().tolist() == pytest.approx(expected, rel=1e-4)
