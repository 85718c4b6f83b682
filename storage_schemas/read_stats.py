"""Reading the statistics that `make stats` stored of one teacher."""

from collections.abc import Mapping, Sequence

import numpy as np

from storage_schemas.format import document_schemas
from storage_schemas.format.errors import ContractError, Problem, require_fields
from storage_schemas.format.schema import require
from storage_schemas.format.stats import ChannelStats, RoundingStats, TeacherStats, shards_of_runs
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.read_groups import read_attributes
from storage_schemas.small_arrays import read_small_arrays, require_shape

STATS_ARRAYS = ("mean", "variance", "spectrum", "rounding")
"""Arrays of a teacher's statistics, over all view sets and over each."""
SUMMARY_STATS_ARRAYS = ("dispersion", "mean_direction")
"""Further arrays, of a teacher with a summary."""
HELDOUT_DISPERSION = "heldout_dispersion"
"""One more, where there are held-out views."""
SET_MERGE_ARRAYS = ("covariance",)
"""What else the statistics of a set's new shards are merged into."""
SUMMARY_MERGE_ARRAYS = ("summary_sum", "summary_length")
"""What else the statistics of new summaries are merged into: Σy and Σ|y|, raw teacher units."""
STATS_ATTRIBUTES = frozenset({"identity", "views", "tokens", "sets", "shards", "summarised", "arrays"})
"""Attributes of the group of a teacher's statistics."""
TRAINING_VIEWS = frozenset({"training_views"})
"""One more, of a teacher with a summary; statistics of earlier versions do not have it."""


def read_stats(store: Store, teacher: str) -> TeacherStats | None:
    """Return a teacher's statistics, or None before they were measured.

    Raises:
        MissingError: an array is not there.
        CorruptionError: an array fails its checksum, was never written, or is not the array that the group names.
        ContractError: another version wrote them.
    """
    group = f"teachers/{teacher}/stats"
    attributes = read_attributes(store, group)
    if attributes is None:
        return None
    require_fields("statistics", group, attributes.keys() - TRAINING_VIEWS, STATS_ATTRIBUTES)
    require("statistics", attributes, document_schemas.STATS, group)
    digests = attributes["arrays"]
    sets = {
        ViewSet.parse(name): _channels(store, group, f"{name}/", tokens, digests)
        for name, tokens in attributes["sets"].items()
    }
    dispersion, direction, heldout = None, None, None
    if attributes["summarised"]:
        if HELDOUT_DISPERSION in digests:
            [heldout] = _arrays(store, group, [HELDOUT_DISPERSION], digests)
            require_shape(f"{group}/{HELDOUT_DISPERSION}", heldout, ())
        dispersion, direction = _arrays(store, group, SUMMARY_STATS_ARRAYS, digests)
        require_shape(f"{group}/dispersion", dispersion, ())
        require_shape(f"{group}/mean_direction", direction, (max(1, direction.size),))
    return TeacherStats(
        identity=attributes["identity"],
        views=attributes["views"],
        shards={ViewSet.parse(name): shards_of_runs(runs, group) for name, runs in attributes["shards"].items()},
        pooled=_channels(store, group, "", attributes["tokens"], digests),
        sets=sets,
        dispersion=None if dispersion is None else float(dispersion),
        mean_direction=direction,
        training_views=attributes.get("training_views"),
        heldout_dispersion=None if heldout is None else float(heldout),
        arrays=digests,
    )


def _channels(store: Store, group: str, prefix: str, tokens: int, digests: Mapping[str, str]) -> ChannelStats:
    names = [f"{prefix}{name}" for name in STATS_ARRAYS]
    mean, variance, spectrum, rounding = _arrays(store, group, names, digests)
    require_shape(f"{group}/{prefix}mean", mean, (max(1, mean.size),))
    for name, values in {"variance": variance, "spectrum": spectrum}.items():
        require_shape(f"{group}/{prefix}{name}", values, mean.shape)
    costs = RoundingStats.from_array(rounding, f"{group}/{prefix}rounding")
    return ChannelStats(tokens=tokens, mean=mean, variance=variance, spectrum=spectrum, rounding=costs)


def _arrays(store: Store, group: str, names: Sequence[str], digests: Mapping[str, str]) -> list[np.ndarray]:
    if absent := [name for name in names if name not in digests]:
        found = f"does not name the SHA-256 of {', '.join(absent)}"
        fix = "delete it, and run `make stats` again"
        raise ContractError("statistics", [Problem(place=group, found=found, fix=fix)])
    return read_small_arrays(store, {f"{group}/{name}": digests[name] for name in names})
