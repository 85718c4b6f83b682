"""What was measured of a teacher's features, in the cache: read back so that more can be merged in, and written."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import final

import numpy as np

from pipeline.phi_s.moments import Moments, covariance, merge, merge_all, variance
from pipeline.phi_s.spectrum import spectrum
from pipeline.stats.dispersion import AngleSum, DirectionSum, dispersion, mean_direction, merge_directions
from pipeline.stats.observed import Observed
from pipeline.stats.quantization import Rounding, means, merge_rounding, sums
from storage_schemas.cache import Cache
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.stats import shard_runs
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import publish_group
from storage_schemas.small_arrays import array_digest, read_small_array, write_small_arrays


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """First pass over some shards of a teacher's features."""

    views: int
    """Views in them."""
    shards: Mapping[ViewSet, frozenset[int]]
    """Their numbers, by set; those without views too."""
    sets: Mapping[ViewSet, Moments]
    """Of stored spatial tokens (PHI-S units), of each set with views."""
    rounding: Mapping[ViewSet, Rounding]
    """What encodings cost on them, of each set with views."""
    directions: DirectionSum | None
    """Of raw summaries; None for a teacher that has none, or before there is a view."""


NOTHING = Measured(views=0, shards={}, sets={}, rounding={}, directions=None)
"""Before anything is measured."""


def read_measured(cache: Cache, manifest: TeacherManifest) -> Measured:
    """Return what was measured of these features, by an earlier run; `NOTHING` where it was other features or none."""
    group, stats = stats_group(manifest), cache.stats(manifest.spec.name)
    if stats is None or stats.identity != manifest.digest:
        return NOTHING

    def merged_from(name: str) -> np.ndarray:
        return cache.store.checked(partial(read_small_array, cache.store, f"{group}/{name}", stats.arrays[name]))

    sets, rounding = {}, {}
    for view_set, channels in stats.sets.items():
        rounding[view_set] = sums(channels.rounding)
        spread = merged_from(f"{view_set.name}/covariance")
        scatter = spread * (channels.tokens - 1)
        sets[view_set] = Moments(count=channels.tokens, mean=channels.mean, scatter=scatter)
    directions = None
    if stats.dispersion is not None:
        total, length = map(merged_from, ("summary_sum", "summary_length"))
        directions = DirectionSum(count=stats.views, total=total, length=float(length))
    return Measured(views=stats.views, shards=stats.shards, sets=sets, rounding=rounding, directions=directions)


def extended(
    measured: Measured, views: int, shards: Mapping[ViewSet, frozenset[int]], observed: Mapping[ViewSet, Observed]
) -> Measured:
    """Return what was measured with further shards merged in.

    Args:
        measured: so far.
        views: in the further shards.
        shards: their numbers, by set; none that was measured before.
        observed: first pass over them, by set, of sets with views.
    """
    sets, rounding, directions = dict(measured.sets), dict(measured.rounding), measured.directions
    for view_set in sorted(observed):
        one = observed[view_set]
        before = rounding.get(view_set)
        sets[view_set] = merge(sets[view_set], one.moments) if view_set in sets else one.moments
        rounding[view_set] = one.rounding if before is None else merge_rounding(before, one.rounding)
        if one.directions is not None:
            directions = one.directions if directions is None else merge_directions(directions, one.directions)
    every = {one: measured.shards.get(one, frozenset()) | more for one, more in shards.items()}
    return Measured(
        views=measured.views + views,
        shards=every,
        sets=dict(sorted(sets.items())),
        rounding=dict(sorted(rounding.items())),
        directions=directions,
    )


def write_measured(cache: Cache, manifest: TeacherManifest, measured: Measured, angles: AngleSum | None) -> None:
    """Write a teacher's statistics over those that are there.

    The group says nothing while its arrays change: killed in between, they are measured again from the start, and never
    is a shard counted twice.

    Args:
        cache: where they go.
        manifest: of the features that were measured.
        measured: first pass over all of them.
        angles: second pass; None for a teacher without summaries.

    Raises:
        ContractError: there are no tokens, or summaries that have no direction or all the same.
    """
    pooled, group = merge_all(measured.sets.values()), stats_group(manifest)
    cost = reduce(merge_rounding, measured.rounding.values())
    arrays = _channels("", pooled, cost) | _summary(measured.directions, angles)
    for view_set, moments in measured.sets.items():
        name = view_set.name
        arrays |= _channels(f"{name}/", moments, measured.rounding[view_set])
        arrays |= {f"{name}/covariance": covariance(moments)}
    publish_group(cache.store, group)
    for view_set in measured.sets:
        publish_group(cache.store, f"{group}/{view_set.name}")
    write_small_arrays(cache.store, group, arrays)
    attributes = {
        "identity": manifest.digest,
        "views": measured.views,
        "tokens": pooled.count,
        "sets": {view_set.name: moments.count for view_set, moments in measured.sets.items()},
        "shards": {view_set.name: shard_runs(shards) for view_set, shards in measured.shards.items()},
        "summarised": measured.directions is not None,
        "arrays": {name: array_digest(values) for name, values in arrays.items()},
    }
    publish_group(cache.store, group, attributes)


def stats_group(manifest: TeacherManifest) -> str:
    """Return the group of a teacher's statistics, inside `features.zarr`."""
    return f"teachers/{manifest.spec.name}/stats"


def _channels(prefix: str, moments: Moments, rounding: Rounding) -> dict[str, np.ndarray]:
    arrays = {"mean": moments.mean, "variance": variance(moments), "spectrum": spectrum(moments)}
    arrays["rounding"] = means(rounding).array()
    return {f"{prefix}{name}": values for name, values in arrays.items()}


def _summary(directions: DirectionSum | None, angles: AngleSum | None) -> dict[str, np.ndarray]:
    if directions is None or angles is None:
        return {}
    return {
        "dispersion": np.array(dispersion(angles)),
        "mean_direction": mean_direction(directions),
        "summary_sum": directions.total,
        "summary_length": np.array(directions.length),
    }
