"""The learning rate rises in a line and falls in a cosine; only matrices decay."""

import math
from itertools import pairwise

import pytest

from trainer.config import HeadSettings, OptimiserSettings
from trainer.model import DistilledModel, TeacherShape
from trainer.schedule import learning_rate_factor, parameter_groups
from trainer.student import Student
from trainer.student_shape import StudentShape


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
    decayed, kept = parameter_groups(model, model.student.backbone, OptimiserSettings(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    in_decayed, in_kept = ({names[id(parameter)] for parameter in group["params"]} for group in (decayed, kept))
    assert in_decayed | in_kept == set(names.values())
    assert not in_decayed & in_kept
    assert {"heads.a_spatial.adaptor.first.weight", "student.backbone.blocks.0.attn.qkv.weight"} <= in_decayed
    exempt = {"student.backbone.pos_embed", "student.backbone.cls_token", "heads.a_spatial.adaptor.first.bias"}
    assert exempt <= in_kept
    assert {name for name in in_decayed if name.endswith("bias") or ".norm" in name} == set()
