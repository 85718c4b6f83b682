"""What the first pass of `stats` finds in some shards of a teacher's features, in a form that merges."""

from dataclasses import dataclass
from typing import final

from pipeline.phi_s.moments import Moments, merge
from pipeline.stats.dispersion import DirectionSum, merge_directions
from pipeline.stats.quantization import Rounding, merge_rounding


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """First pass over some shards."""

    moments: Moments
    """Of stored spatial tokens (PHI-S units)."""
    rounding: Rounding
    """What encodings cost on them."""
    directions: DirectionSum | None
    """Of raw summaries; None for a teacher that has none."""


def merge_observed(left: Observed, right: Observed) -> Observed:
    """Return the first pass over both."""
    directions = left.directions
    if directions is not None and right.directions is not None:
        directions = merge_directions(directions, right.directions)
    rounding = merge_rounding(left.rounding, right.rounding)
    return Observed(moments=merge(left.moments, right.moments), rounding=rounding, directions=directions)
