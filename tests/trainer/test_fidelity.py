"""Fidelity: the ratio of a teacher's variance to a student's error, on the same tokens, however they come."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from storage_schemas.format.errors import ContractError
from trainer.evaluation.fidelity import fidelity, observe_fidelity, phi_fidelity


def drawn(seed: int, views: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    teacher = 0.3 + torch.randn(views, 3, 3, 5, generator=random)
    student = teacher + 0.5 * torch.randn(views, 3, 3, 5, generator=random)
    return student, teacher, torch.rand(views, 3, 3, generator=random) < 0.7


@given(seed=st.integers(0, 2**16))
def test_fidelity_is_equation_8_over_the_common_tokens(seed: int) -> None:
    student, teacher, common = drawn(seed)
    f, t = student[common].numpy().astype(np.float64), teacher[common].numpy().astype(np.float64)
    expected = np.mean(np.var(t, axis=0)) / np.mean((f - t) ** 2)
    assert fidelity(observe_fidelity(student, teacher, common), "a") == pytest.approx(expected, rel=1e-9)


@given(seed=st.integers(0, 2**16))
def test_the_form_of_the_papers_tables_is_phi_squared_over_the_error_in_raw_units(seed: int) -> None:
    student, teacher, common = drawn(seed)
    phi = 3.0
    f, t = phi * student[common].numpy().astype(np.float64), phi * teacher[common].numpy().astype(np.float64)
    expected = phi**2 / np.mean((f - t) ** 2)
    assert phi_fidelity(observe_fidelity(student, teacher, common), "a") == pytest.approx(expected, rel=1e-9)


def test_resampled_tokens_have_less_variance_so_the_form_of_the_tables_is_larger() -> None:
    student, teacher, common = drawn(3)
    sums = observe_fidelity(0.5 * student, 0.5 * teacher, common)  # half of the deviation, as after averaging cells
    variance = np.mean(np.var(0.5 * teacher[common].numpy().astype(np.float64), axis=0))
    assert fidelity(sums, "a") == pytest.approx(variance * phi_fidelity(sums, "a"), rel=1e-9)
    assert phi_fidelity(sums, "a") > 2 * fidelity(sums, "a")


def test_sums_over_batches_add_up_to_the_sum_over_all() -> None:
    student, teacher, common = drawn(0)
    parts = [observe_fidelity(student[rows], teacher[rows], common[rows]) for rows in ([0, 1], [2], [3])]
    together = fidelity(parts[0] + parts[1] + parts[2], "a")
    assert together == pytest.approx(fidelity(observe_fidelity(student, teacher, common), "a"), rel=1e-12)


def test_a_student_that_says_the_teachers_mean_has_fidelity_one() -> None:
    _, teacher, common = drawn(1)
    mean = teacher[common].double().mean(dim=0).expand_as(teacher)
    assert fidelity(observe_fidelity(mean, teacher.double(), common), "a") == pytest.approx(1, rel=1e-12)


def test_a_perfect_match_is_infinite() -> None:
    _, teacher, common = drawn(2)
    assert fidelity(observe_fidelity(teacher, teacher, common), "a") == float("inf")
    assert phi_fidelity(observe_fidelity(teacher, teacher, common), "a") == float("inf")


@pytest.mark.parametrize(
    ("teacher", "student", "found"),
    [
        (torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), "1 held-out tokens are too few"),
        (torch.ones(2, 1, 1, 2), torch.zeros(2, 1, 1, 2), "variance 0.0 over error 1.0 is not a fidelity"),
        (
            torch.eye(2).reshape(2, 1, 1, 2),
            torch.full((2, 1, 1, 2), torch.nan),
            "variance 0.25 over error nan is not a fidelity",
        ),
    ],
)
def test_what_gives_no_ratio_is_refused(teacher: Tensor, student: Tensor, found: str) -> None:
    sums = observe_fidelity(student, teacher, torch.ones(teacher.shape[:3], dtype=torch.bool))
    with pytest.raises(ContractError) as refusal:
        fidelity(sums, "dinov3 on low-256")
    assert str(refusal.value) == f"fidelity breaks the storage contract:\n  dinov3 on low-256: {found}"
