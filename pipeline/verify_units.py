"""Checking the metadata of a unit's arrays, which a run that was killed while it extended a cache may leave shorter."""

from pipeline.findings import Findings
from pipeline.units import Unit
from pipeline.verify_groups import check_array, check_group, metadata_name
from storage_schemas.cache import Cache
from storage_schemas.commits import committed_shards


def lengths(cache: Cache, unit: Unit) -> list[int]:
    """Return the lengths (row slots) that a unit's arrays may have.

    They are published before the first shard that needs them: they are as long as some generation makes them, and no
    shorter than the committed shards need. 0 where they need not be there at all.
    """
    grid = unit.grid
    last = max((shard for shard in committed_shards(cache.store, unit.name) if shard < grid.shards), default=-1)
    grids = [grid.first(generations) for generations in range(1, len(grid.counts) + 1)]
    return [one.rows for one in grids if one.shards > last]


def check_unit(cache: Cache, unit: Unit, *, group: str, group_fix: str, array_fix: str, found: Findings) -> None:
    """Check the group that holds a unit's arrays, and their metadata.

    Args:
        cache: the cache.
        unit: the unit.
        group: path inside `features.zarr`.
        group_fix: what mends the group.
        array_fix: what mends an array.
        found: what is wrong is noted here.
    """
    allowed = lengths(cache, unit)
    expected = 0 not in allowed
    if expected or cache.store.exists(metadata_name(group)):
        check_group(cache.store, group, ours=False, fix=group_fix, found=found)
    for spec in unit.arrays:
        if expected or cache.store.exists(metadata_name(spec.path)):
            check_array(cache.store, spec, lengths=allowed, fix=array_fix, found=found)
