"""What a task returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The scores of one task on the features of one view set."""

    scores: Mapping[str, float]
    """Scores by name, in the order of the table: `accuracy`, `mAP`, `R@1`. Shares are from 0 to 1."""
    counts: Mapping[str, int | float | str]
    """What they were measured on and with: numbers of views, classes or pixels, a setting that was chosen."""
