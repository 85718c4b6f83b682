"""The result of the first pass over shards of a view set. Results of different shards can be merged."""

from dataclasses import dataclass
from typing import final

from pipeline.phi_s.moments import Moments, merge
from pipeline.stats.dispersion import DirectionSum, merge_directions
from pipeline.stats.quantization import RoundingSums, merge_rounding


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetSums:
    """The first pass over some shards of a view set."""

    moments: Moments
    """Moments of stored spatial tokens (PHI-S units)."""
    rounding: RoundingSums
    """The error of each encoding on these tokens."""
    directions: DirectionSum | None
    """Sum of raw summaries, of the training views where the splits are kept apart; None for a teacher that has none."""


def merge_set_sums(left: SetSums, right: SetSums) -> SetSums:
    """Return the sums over the shards of both."""
    directions = left.directions
    if directions is not None and right.directions is not None:
        directions = merge_directions(directions, right.directions)
    rounding = merge_rounding(left.rounding, right.rounding)
    return SetSums(moments=merge(left.moments, right.moments), rounding=rounding, directions=directions)
