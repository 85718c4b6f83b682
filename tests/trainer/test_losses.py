"""Every loss against a loop that reads like its equation."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.objective.losses import (
    angles,
    balanced_angle,
    cosine_distance,
    spatial_cosine,
    spatial_mse,
    spatial_smooth,
)

SEEDS = st.integers(0, 2**16)


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(3, 2, 4, 5, generator=random) for _ in range(2))
    common = torch.rand(3, 2, 4, generator=random) < 0.5
    common[:, 0, 0] = True
    return student, teacher, common


def mean_by_view(values: list[list[float]]) -> float:
    return sum(sum(view) / len(view) for view in values) / len(values)


@given(seed=SEEDS)
def test_spatial_mse_is_equation_1_with_a_mean_over_channels(seed: int) -> None:
    student, teacher, common = drawn(seed)
    views = []
    for view in range(3):
        places = common[view].nonzero().tolist()
        views.append(
            [
                sum((float(student[view, r, c, k]) - float(teacher[view, r, c, k])) ** 2 for k in range(5)) / 5
                for r, c in places
            ]
        )
    assert float(spatial_mse(student, teacher, common)) == pytest.approx(mean_by_view(views), rel=1e-5)


@given(seed=SEEDS)
def test_spatial_cosine_is_one_less_the_cosine_over_common_tokens(seed: int) -> None:
    student, teacher, common = drawn(seed)
    views = []
    for view in range(3):
        pairs = [(student[view, r, c].tolist(), teacher[view, r, c].tolist()) for r, c in common[view].nonzero()]
        views.append([1 - dot(x, y) / math.sqrt(dot(x, x) * dot(y, y)) for x, y in pairs])
    assert float(spatial_cosine(student, teacher, common)) == pytest.approx(mean_by_view(views), rel=1e-4)


@given(seed=SEEDS)
def test_the_smooth_spatial_loss_is_nine_parts_of_cosine_and_one_of_smooth_l1(seed: int) -> None:
    student, teacher, common = drawn(seed)
    views = []
    for view in range(3):
        places = common[view].nonzero().tolist()
        apart = [
            [abs(float(student[view, r, c, k]) - float(teacher[view, r, c, k])) for k in range(5)] for r, c in places
        ]
        views.append([sum(d * d / 2 if d < 1 else d - 0.5 for d in token) / 5 for token in apart])
    expected = 0.9 * float(spatial_cosine(student, teacher, common)) + 0.1 * mean_by_view(views)
    assert float(spatial_smooth(student, teacher, common)) == pytest.approx(expected, rel=1e-5)


@given(seed=SEEDS)
def test_the_balanced_angle_is_equation_7(seed: int) -> None:
    x, y = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(seed))
    squares = [
        math.acos(dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))) ** 2
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]
    assert float(balanced_angle(x, y, 0.694)) == pytest.approx(sum(squares) / 4 / 0.694, rel=1e-4)


@given(seed=SEEDS)
def test_the_cosine_distance_is_one_less_the_cosine(seed: int) -> None:
    x, y = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(seed))
    cosines = [dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert float(cosine_distance(x, y)) == pytest.approx(1 - sum(cosines) / 4, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("small", [1e-6, 1e-4, 1e-2])
def test_small_angles_and_angles_close_to_opposite_keep_their_digits(small: float) -> None:
    x = torch.tensor([[1.0, 0.0]])
    near = torch.tensor([[math.cos(small), math.sin(small)]])
    assert float(angles(x, near)) == pytest.approx(small, rel=1e-5)
    assert math.pi - float(angles(x, -near)) == pytest.approx(small, abs=3e-7)


def test_lengths_do_not_matter_to_an_angle() -> None:
    x, y = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(angles(5 * x, 0.01 * y), angles(x, y), rtol=1e-5)


@pytest.mark.parametrize(("sign", "angle"), [(1.0, 0.0), (-1.0, math.pi)])
def test_the_angle_loss_and_its_gradient_are_finite_where_vectors_are_alike_or_opposite(
    sign: float, angle: float
) -> None:
    y = torch.tensor([[3.0, 4.0, 0.0], [0.1, 0.2, 0.3]])
    x = (sign * y).requires_grad_()
    loss = balanced_angle(x, y, 2.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(angle**2 / 2, rel=1e-6, abs=1e-12)
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_student_equal_to_its_teacher_has_no_loss() -> None:
    student, _, common = drawn(0)
    assert float(spatial_mse(student, student, common)) == 0
    assert float(spatial_cosine(student, student, common)) == pytest.approx(0, abs=1e-6)
    assert float(spatial_smooth(student, student, common)) == pytest.approx(0, abs=1e-6)
    assert float(balanced_angle(student[0, 0], student[0, 0], 1.0)) == 0


@pytest.mark.parametrize("loss", [spatial_mse, spatial_cosine, spatial_smooth])
def test_what_lies_outside_the_common_positions_changes_nothing_not_even_by_nan(loss: Any) -> None:
    student, teacher, common = drawn(1)
    assert not common.all()
    sound = student.clone().requires_grad_()
    expected = loss(sound, teacher, common)
    expected.backward()
    spoiled = torch.where(common[..., None], student, torch.nan).requires_grad_()
    found = loss(spoiled, torch.where(common[..., None], teacher, torch.nan), common)
    found.backward()
    assert torch.equal(found.detach(), expected.detach())
    assert sound.grad is not None
    assert spoiled.grad is not None
    assert torch.equal(spoiled.grad, sound.grad)
    assert not spoiled.grad[~common].any()


@pytest.mark.parametrize("loss", [spatial_mse, spatial_cosine, spatial_smooth])
def test_spatial_gradients_agree_with_differences(loss: object, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, common = drawn(2)
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # differences need more digits than float32 has
    assert torch.autograd.gradcheck(
        lambda x: loss(x, teacher.double(), common),  # type: ignore[operator]
        student.double().requires_grad_(),
    )


@pytest.mark.parametrize("loss", [lambda x, y: balanced_angle(x, y, 0.7), cosine_distance])
def test_summary_gradients_agree_with_differences(loss: object, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x.requires_grad_())  # type: ignore[operator]


def test_losses_are_float32_whatever_comes_in() -> None:
    student, teacher, common = drawn(4)
    coarse = student.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [spatial_mse(coarse, teacher.half(), common), balanced_angle(coarse[0, 0], teacher[0, 0], 1.0)]
    outside = [
        spatial_mse(coarse.float(), teacher.half().float(), common),
        balanced_angle(coarse[0, 0].float(), teacher[0, 0], 1.0),
    ]
    assert [loss.dtype for loss in inside] == [torch.float32] * 2
    assert inside == outside


def dot(x: list[float], y: list[float]) -> float:
    return sum(float(a) * float(b) for a, b in zip(x, y, strict=True))
