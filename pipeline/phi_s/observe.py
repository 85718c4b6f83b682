"""Measuring the moments of feature rows with torch, on the device where the rows are."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64

from pipeline.phi_s.moments import Moments, refuse_other_channels, refuse_rows
from storage_schemas.format.errors import ContractError, Problem

ROWS_AT_ONCE = 1024
"""Rows held in float64 at a time: memory does not grow with the number of rows."""
STRIPS = 8
"""Column strips of the scatter. Each is computed from its diagonal block to the right: 9/16 of the whole product."""
NARROWEST_STRIP = 128
"""Fewest columns of a strip. Matrix products of narrower strips lose more speed than their smaller size saves."""


def observe(rows: Float[torch.Tensor, "rows channels"]) -> Moments:
    """Measure one block of rows; see `observe_all`."""
    return observe_all([rows])


def observe_all(blocks: Iterable[Float[torch.Tensor, "_ channels"]]) -> Moments:
    """Measure the rows of successive blocks, on the device where they are.

    Rows are centred on the mean c of the first rows before they are multiplied, so that almost nothing cancels: with
    d = x − c, mean = c + Σd / n and scatter = Σ d dᵀ − (Σd)(Σd)ᵀ / n. A channel that never changes has a variance of
    exactly zero: its d is at most a few units in the last place of c, whose squares are summed without rounding.

    Products are in float64. A float32 product has errors of 1e-7 that depend on how rows are split. Only the part right
    of the diagonal is computed, so float64 takes about as long as the whole product in float32, on a CPU and on
    accelerators whose float64 runs at half rate or better. For other accelerators, pass rows that are on the CPU.

    Args:
        blocks: features (all of one unit), of any float type, each with any number of rows. One call for many blocks is
            cheaper than a call for each and a merge, which pass over matrices of `[C, C]` several times.

    Raises:
        ContractError: there are no rows, blocks differ in channels, or rows hold NaN or infinity; these are named by
            number, counted from the first block on.
    """
    observer = Observer()
    for rows in blocks:
        observer.add(rows)
    return observer.moments()


@final
class Observer:
    """Measures blocks of rows as they are added, as `observe_all` does."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: _Sums | None = None

    def add(self, rows: Float[torch.Tensor, "rows channels"]) -> None:
        """Add a block of rows.

        Raises:
            ContractError: it differs in channels from the blocks before it, or holds NaN or infinity.
        """
        if len(rows) == 0:
            return
        if self._sums is None:
            self._sums = _sums_about(rows[:ROWS_AT_ONCE].double().mean(dim=0))
        refuse_other_channels(self._sums.centre.numel(), rows.shape[1])
        _add(self._sums, rows)
        if not bool(self._sums.total.isfinite().all()):
            refuse_rows("A feature array", np.pad(non_finite_rows(rows), (self._count, 0)), "NaN or infinity")
        self._count += len(rows)

    def moments(self) -> Moments:
        """Return the moments of all rows so far.

        Raises:
            ContractError: there are no rows.
        """
        if self._sums is None:
            problem = Problem(place="rows", found="expected at least one, there are none")
            raise ContractError("A feature array", [problem])
        sums, count = self._sums, self._count
        mean = sums.centre + sums.total / count
        scatter = _mirrored(sums.products) - torch.outer(sums.total, sums.total) / count
        return Moments(count=count, mean=mean.cpu().numpy(), scatter=scatter.cpu().numpy())


def non_finite_rows(rows: Float[torch.Tensor, "rows channels"]) -> Bool[np.ndarray, " rows"]:
    """Say for each row whether it holds NaN or infinity."""
    return (~rows.isfinite().all(dim=1)).cpu().numpy()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sums:
    """Sums over d = x − c, which rows are added to in place."""

    centre: Float64[torch.Tensor, " channels"]
    """c."""
    total: Float64[torch.Tensor, " channels"]
    """Σd."""
    products: Float64[torch.Tensor, "channels channels"]
    """Σ d dᵀ on the diagonal blocks of the strips and to their right; zero elsewhere."""


def _sums_about(centre: Float64[torch.Tensor, " channels"]) -> _Sums:
    products = torch.zeros(centre.numel(), centre.numel(), dtype=torch.float64, device=centre.device)
    return _Sums(centre=centre, total=torch.zeros_like(centre), products=products)


def _add(sums: _Sums, rows: Float[torch.Tensor, "rows channels"]) -> None:
    """Add rows to the sums, a bounded number at a time."""
    channels = rows.shape[1]
    width = max(NARROWEST_STRIP, -(-channels // STRIPS))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        centred = rows[start : start + ROWS_AT_ONCE].double() - sums.centre
        sums.total.add_(centred.sum(dim=0))
        for left in range(0, channels, width):
            strip = slice(left, left + width)
            sums.products[strip, left:].addmm_(centred[:, strip].T, centred[:, left:])


def _mirrored(products: Float64[torch.Tensor, "channels channels"]) -> Float64[torch.Tensor, "channels channels"]:
    """Return a symmetric matrix, given its entries on the diagonal and right of it."""
    return products.triu() + products.triu(diagonal=1).T
