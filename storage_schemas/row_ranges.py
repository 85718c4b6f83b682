"""Row slots that hold views, as ranges: what a set of a billion views needs is a few numbers, not a table of rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int64


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowRanges:
    """Row slots in ascending order, without repeats. It takes 16 bytes for each gap between them.

    The n-th of them is `ranges[n]`; `ranges[first:stop]` and `ranges[array]` give several at once.
    """

    starts: Int64[np.ndarray, " ranges"]
    """First row slot of each range."""
    before: Int64[np.ndarray, " ranges_and_end"]
    """Row slots in all ranges before each one; last, row slots in all of them."""

    def __len__(self) -> int:
        return int(self.before[-1])

    def __getitem__(self, ranks: "int | slice | Sequence[int] | Int64[np.ndarray, ' views']") -> np.ndarray:
        """Return the row slots at some places of the ascending order.

        Raises:
            IndexError: there are not so many row slots.
        """
        if isinstance(ranks, slice):
            ranks = np.arange(*ranks.indices(len(self)))
        places = np.asarray(ranks, dtype=np.int64)
        if places.size and not -len(self) <= places.min() <= places.max() < len(self):
            raise IndexError(f"{ranks} is out of range: there are {len(self)} views")
        places = np.where(places < 0, places + len(self), places)
        within = np.searchsorted(self.before, places, side="right") - 1
        return np.asarray(self.starts[within] + places - self.before[within]) if places.size else places

    def tolist(self) -> list[int]:
        """Return all row slots."""
        return self[:].tolist()


def row_ranges(starts: Iterable[int] | np.ndarray, stops: Iterable[int] | np.ndarray) -> RowRanges:
    """Return the row slots of ranges. Empty ranges are left out, and ranges that touch become one.

    Args:
        starts: first row slot of each range, in ascending order.
        stops: the row slot after the last one of each range.
    """
    first, stop = (np.asarray(ends, dtype=np.int64).reshape(-1) for ends in (starts, stops))
    first, stop = first[stop > first], stop[stop > first]
    parted = np.flatnonzero(first[1:] != stop[:-1]) + 1
    lengths = np.concatenate([stop[parted - 1], stop[-1:]]) - np.concatenate([first[:1], first[parted]])
    return RowRanges(
        starts=np.concatenate([first[:1], first[parted]]), before=np.concatenate([[0], np.cumsum(lengths)])
    )


def joined_ranges(parts: Sequence[RowRanges]) -> RowRanges:
    """Return the row slots of several parts, each of which ends before the next one starts."""
    starts = np.concatenate([np.zeros(0, np.int64), *(part.starts for part in parts)])
    lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.before) for part in parts)])
    return row_ranges(starts, starts + lengths)
