"""Measuring feature rows with torch, on the device where they lie: the moments of `pipeline.phi_s.moments`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64

from pipeline.phi_s.moments import Moments, refuse_other_channels, refuse_rows
from storage_schemas.format.errors import ContractError, Problem

ROWS_AT_ONCE = 1024
"""Rows held in float64 at a time: memory stays flat however many rows there are."""
STRIPS = 8
"""Column strips of the scatter. Each is computed from its own diagonal rightwards: 9/16 of the whole product."""
NARROWEST_STRIP = 128
"""Columns below which a strip's matrix product would run slower than its smaller size saves."""


def observe(rows: Float[torch.Tensor, "rows channels"]) -> Moments:
    """Measure rows, on the device where they lie; as `observe_all` of this one block."""
    return observe_all([rows])


def observe_all(blocks: Iterable[Float[torch.Tensor, "_ channels"]]) -> Moments:
    """Measure the rows of blocks that come one after another, on the device where they lie.

    Rows are centred on the mean c of the first ones before they are multiplied, which leaves no cancellation to speak
    of: with d = x − c, mean = c + Σd / n and scatter = Σ d dᵀ − (Σd)(Σd)ᵀ / n. A channel that never changes has a
    variance of exactly zero: its d is at most a few units in c's last place, which square and sum without rounding.

    The product is in float64. A float32 one rounds at 1e-7, differently for each way of splitting the rows; and since
    only what is right of the diagonal is computed, float64 takes about as long as all of it would in float32, on a
    CPU and on accelerators that do float64 at half rate or better. On others, pass rows that lie on the CPU.

    Args:
        blocks: features (any one unit), of any float type, each of any number of rows. One call for many blocks costs
            less than a call for each and a merge: those pass over matrices of `[C, C]` several times.

    Raises:
        ContractError: no rows, blocks that differ in channels, or rows that hold NaN or infinity, named by number,
            counted from the first block on.
    """
    observer = Observer()
    for rows in blocks:
        observer.add(rows)
    return observer.moments()


@final
class Observer:
    """Measures rows as they come, as `observe_all` does, for whoever cannot hand them over as one sequence."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: _Sums | None = None

    def add(self, rows: Float[torch.Tensor, "rows channels"]) -> None:
        """Add a block of rows.

        Raises:
            ContractError: its channels are not those of the blocks before it, or it holds NaN or infinity.
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
            ContractError: there were none.
        """
        if self._sums is None:
            problem = Problem(place="rows", found="expected at least one, there are none")
            raise ContractError("A feature array", [problem])
        sums, count = self._sums, self._count
        mean = sums.centre + sums.total / count
        scatter = _mirrored(sums.products) - torch.outer(sums.total, sums.total) / count
        return Moments(count=count, mean=mean.cpu().numpy(), scatter=scatter.cpu().numpy())


def non_finite_rows(rows: Float[torch.Tensor, "rows channels"]) -> Bool[np.ndarray, " rows"]:
    """Tell for each row whether it holds NaN or infinity."""
    return (~rows.isfinite().all(dim=1)).cpu().numpy()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sums:
    """What is added up, in place, over d = x − c."""

    centre: Float64[torch.Tensor, " channels"]
    """c."""
    total: Float64[torch.Tensor, " channels"]
    """Σd."""
    products: Float64[torch.Tensor, "channels channels"]
    """Σ d dᵀ, on the strips' diagonal blocks and right of them; zero elsewhere."""


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
    """Copy what is right of the diagonal to its left."""
    return products.triu() + products.triu(diagonal=1).T
