"""The spectrum of a student's features: how their variance is distributed over principal directions."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from storage_schemas.format.errors import ContractError, Problem


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureSums:
    """Sums over tokens in float64. Sums of two sets of tokens are added to get those of both."""

    tokens: int
    """Number of tokens."""
    sums: Float[Tensor, " channels"]
    """Σ x."""
    products: Float[Tensor, "channels channels"]
    """Σ x xᵀ."""

    def __add__(self, other: "FeatureSums") -> "FeatureSums":
        return FeatureSums(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


def observe_features(tokens: Float[Tensor, "batch rows cols channels"]) -> FeatureSums:
    """Return the sums of a batch of tokens, on the CPU."""
    flat = tokens.flatten(0, 2).double()
    return FeatureSums(tokens=len(flat), sums=flat.sum(dim=0).cpu(), products=(flat.T @ flat).cpu())


def variances(sums: FeatureSums) -> Float[Tensor, " channels"]:
    """Return the shares of the variance along the principal directions, largest first.

    Raises:
        ContractError: the features are not finite, or have no variance.
    """
    mean = sums.sums / sums.tokens
    covariance = sums.products / sums.tokens - torch.outer(mean, mean)
    total = float(covariance.trace())
    if not 0 < total < float("inf"):
        found = f"their total variance is {total}"
        raise ContractError("evaluation", [Problem(place="features of the student", found=found)])
    return torch.linalg.eigvalsh(covariance).flip(0).clamp(min=0) / total


def first_shares(shares: Float[Tensor, " channels"]) -> dict[str, float]:
    """Return the share of the variance in the first 1, 2, 4, … directions, and in all of them."""
    counts = [2**power for power in range(len(shares).bit_length()) if 2**power < len(shares)]
    return {str(count): float(shares[:count].sum()) for count in [*counts, len(shares)]}
