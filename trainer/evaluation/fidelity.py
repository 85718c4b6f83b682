"""Fidelity: the ratio of a teacher's variance to the student's error."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from storage_schemas.format.errors import ContractError, Problem


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FidelitySums:
    """Sums over tokens in float64. Sums of two sets of tokens are added to get those of both."""

    tokens: Tensor
    """Number of tokens."""
    target: Tensor
    """Σ t `[channels]` (PHI-S units)."""
    target_squares: Tensor
    """Σ |t|² (PHI-S units squared)."""
    error_squares: Tensor
    """Σ |f − t|² (PHI-S units squared)."""

    def __add__(self, other: "FidelitySums") -> "FidelitySums":
        return FidelitySums(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    def cpu(self) -> "FidelitySums":
        """Return the sums on the CPU."""
        return FidelitySums(**{name: getattr(self, name).cpu() for name in self.__slots__})


def observe_fidelity(
    student: Float[Tensor, "batch rows cols channels"],
    teacher: Float[Tensor, "batch rows cols channels"],
    common: Bool[Tensor, "batch rows cols"],
) -> FidelitySums:
    """Return the sums over Ω of a batch of tokens.

    Args:
        student: F_{S→T}[f(X)] (PHI-S units).
        teacher: t(X) at the same positions (PHI-S units).
        common: Ω.
    """
    target, error = teacher[common].double(), student[common].double() - teacher[common].double()
    return FidelitySums(
        tokens=torch.tensor(len(target), dtype=torch.float64, device=target.device),
        target=target.sum(dim=0),
        target_squares=target.square().sum(),
        error_squares=error.square().sum(),
    )


def fidelity(sums: FidelitySums, place: str) -> float:
    """Return the variance of the teacher over the student's mean squared error, both over the same tokens.

        F[X] = Var[t(X)] / MSE(f(X), t(X))

    Both are means over channels. At 1 or below, the student predicts no better than the teacher's mean does; infinity
    is a perfect match. Source: v2.5 eq 8, in PHI-S units, in its first form. Tokens that were resampled to a coarser
    grid have less variance than φ², so the second form, `phi_fidelity`, is larger there.

    Args:
        sums: sums over the tokens.
        place: teacher and view sets, for the error message.

    Raises:
        ContractError: there are fewer than two tokens, the teacher has no variance, or the student's error is NaN.
    """
    error, variance = _error(sums, place), _variance(sums)
    if not variance > 0:
        found = f"variance {variance} over error {error} is not a fidelity"
        raise ContractError("fidelity", [Problem(place=place, found=found)])
    return variance / error if error > 0 else float("inf")


def phi_fidelity(sums: FidelitySums, place: str) -> float:
    """Return φ² over the student's mean squared error.

        F[X] = φ² / MSE(f(X), t(X)),   which in PHI-S units is 1 / MSE

    Source: v2.5 eq 8, in its second form: the one of its table 3 and of the tables of PHI-S (arXiv:2410.01680). φ² is
    the teacher's mean variance over the sample that PHI-S was fitted on.

    Args:
        sums: sums over the tokens.
        place: teacher and view sets, for the error message.

    Raises:
        ContractError: there are fewer than two tokens, or the student's error is NaN.
    """
    error = _error(sums, place)
    return 1 / error if error > 0 else float("inf")


def _variance(sums: FidelitySums) -> float:
    tokens, channels = float(sums.tokens), len(sums.target)
    return float(sums.target_squares - sums.target.square().sum() / tokens) / (tokens * channels)


def _error(sums: FidelitySums, place: str) -> float:
    """Return the mean squared error, a mean over channels."""
    tokens, channels = float(sums.tokens), len(sums.target)
    if tokens < 2:
        raise ContractError("fidelity", [Problem(place=place, found=f"{tokens:.0f} held-out tokens are too few")])
    error = float(sums.error_squares) / (tokens * channels)
    if not error >= 0:
        found = f"variance {_variance(sums)} over error {error} is not a fidelity"
        raise ContractError("fidelity", [Problem(place=place, found=found)])
    return error
