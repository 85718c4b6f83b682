"""A teacher's statistics in the cache: the sums behind them, read back so that new shards can be added, and written."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import final

import numpy as np

from pipeline.phi_s.moments import Moments, covariance, merge, merge_all, variance
from pipeline.phi_s.spectrum import spectrum
from pipeline.stats.dispersion import DirectionSum, SplitAngles, dispersion, mean_direction, merge_directions
from pipeline.stats.quantization import RoundingSums, mean_rounding, merge_rounding, rounding_sums
from pipeline.stats.set_sums import SetSums
from storage_schemas.cache import Cache
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.stats import TeacherStats, shard_runs
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import publish_group
from storage_schemas.small_arrays import array_digest, read_small_array, write_small_arrays


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherSums:
    """The first pass over some shards of a teacher's features."""

    views: int
    """Views in these shards."""
    shards: Mapping[ViewSet, frozenset[int]]
    """Their numbers, by set; those without views too."""
    sets: Mapping[ViewSet, Moments]
    """Moments of stored spatial tokens (PHI-S units), of each set with views."""
    rounding: Mapping[ViewSet, RoundingSums]
    """The error of each encoding on these tokens, of each set with views."""
    directions: DirectionSum | None
    """Sum of raw summaries, of the training views where the splits are kept apart. None for a teacher that has none,
    and before there is a view."""
    kept_apart: bool = True
    """Whether the sum of summaries is that of the training views alone; see `MeasureTask`."""


NO_SUMS = TeacherSums(views=0, shards={}, sets={}, rounding={}, directions=None)
"""Before anything is measured."""


def read_sums(cache: Cache, manifest: TeacherManifest, stats: TeacherStats | None) -> TeacherSums:
    """Return the sums behind stored statistics; `NO_SUMS` where these are of other features, or there are none.

    Args:
        cache: where they are stored.
        manifest: of the features.
        stats: the statistics that are stored under the teacher's name.
    """
    if stats is None or stats.identity != manifest.digest:
        return NO_SUMS
    group, digests = stats_group(manifest), stats.arrays

    def array(name: str) -> np.ndarray:
        return cache.store.checked(partial(read_small_array, cache.store, f"{group}/{name}", digests[name]))

    sets, rounding = {}, {}
    for view_set, channels in stats.sets.items():
        rounding[view_set] = rounding_sums(channels.rounding)
        scatter = array(f"{view_set.name}/covariance") * (channels.tokens - 1)
        sets[view_set] = Moments(count=channels.tokens, mean=channels.mean, scatter=scatter)
    directions = None
    if stats.dispersion is not None:
        total, length = map(array, ("summary_sum", "summary_length"))
        count = stats.views if stats.training_views is None else stats.training_views
        directions = DirectionSum(count=count, total=total, length=float(length))
    return TeacherSums(
        views=stats.views,
        shards=stats.shards,
        sets=sets,
        rounding=rounding,
        directions=directions,
        kept_apart=stats.dispersion is None or stats.training_views is not None,
    )


def add_shards(
    sums: TeacherSums, views: int, shards: Mapping[ViewSet, frozenset[int]], observed: Mapping[ViewSet, SetSums]
) -> TeacherSums:
    """Return sums with further shards added.

    Args:
        sums: so far.
        views: in the further shards.
        shards: their numbers, by set; none that the sums hold already.
        observed: the first pass over them, by set, of sets with views.
    """
    sets, rounding, directions = dict(sums.sets), dict(sums.rounding), sums.directions
    for view_set in sorted(observed):
        new, before = observed[view_set], rounding.get(view_set)
        sets[view_set] = merge(sets[view_set], new.moments) if view_set in sets else new.moments
        rounding[view_set] = new.rounding if before is None else merge_rounding(before, new.rounding)
        if new.directions is not None:
            directions = new.directions if directions is None else merge_directions(directions, new.directions)
    return TeacherSums(
        views=sums.views + views,
        shards={view_set: sums.shards.get(view_set, frozenset()) | added for view_set, added in shards.items()},
        sets=dict(sorted(sets.items())),
        rounding=dict(sorted(rounding.items())),
        directions=directions,
        kept_apart=sums.kept_apart,
    )


def write_stats(cache: Cache, manifest: TeacherManifest, sums: TeacherSums, angles: SplitAngles | None) -> None:
    """Write a teacher's statistics in the place of those that are there.

    The group's attributes are taken away while its arrays change. A run that is killed in between leaves no statistics,
    so all shards are measured again, and none is counted twice.

    Args:
        cache: where they go.
        manifest: of the features that were measured.
        sums: the first pass over all of them.
        angles: the second pass; None for a teacher without summaries.

    Raises:
        ContractError: there are no tokens, or the summaries have no direction or all the same.
    """
    pooled, group = merge_all(sums.sets.values()), stats_group(manifest)
    cost = reduce(merge_rounding, sums.rounding.values())
    arrays = _channels("", pooled, cost) | _summary(sums.directions, angles)
    for view_set, moments in sums.sets.items():
        name = view_set.name
        arrays |= _channels(f"{name}/", moments, sums.rounding[view_set])
        arrays |= {f"{name}/covariance": covariance(moments)}
    publish_group(cache.store, group)
    for view_set in sums.sets:
        publish_group(cache.store, f"{group}/{view_set.name}")
    write_small_arrays(cache.store, group, arrays)
    attributes = {
        "identity": manifest.digest,
        "views": sums.views,
        "tokens": pooled.count,
        "sets": {view_set.name: moments.count for view_set, moments in sums.sets.items()},
        "shards": {view_set.name: shard_runs(shards) for view_set, shards in sums.shards.items()},
        "summarised": sums.directions is not None,
        "arrays": {name: array_digest(values) for name, values in arrays.items()},
    }
    if sums.kept_apart and sums.directions is not None:
        attributes["training_views"] = sums.directions.count
    publish_group(cache.store, group, attributes)


def stats_group(manifest: TeacherManifest) -> str:
    """Return the group of a teacher's statistics, inside `features.zarr`."""
    return f"teachers/{manifest.spec.name}/stats"


def _channels(prefix: str, moments: Moments, rounding: RoundingSums) -> dict[str, np.ndarray]:
    arrays = {"mean": moments.mean, "variance": variance(moments), "spectrum": spectrum(moments)}
    arrays["rounding"] = mean_rounding(rounding).array()
    return {f"{prefix}{name}": values for name, values in arrays.items()}


def _summary(directions: DirectionSum | None, angles: SplitAngles | None) -> dict[str, np.ndarray]:
    if directions is None or angles is None:
        return {}
    arrays = {
        "dispersion": np.array(dispersion(angles.train)),
        "mean_direction": mean_direction(directions),
        "summary_sum": directions.total,
        "summary_length": np.array(directions.length),
    }
    if angles.heldout.count:
        arrays["heldout_dispersion"] = np.array(angles.heldout.squares / angles.heldout.count)
    return arrays
