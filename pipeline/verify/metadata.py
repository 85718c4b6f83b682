"""Checking `zarr.json`: that groups and arrays are there and say what the manifests imply."""

import json
from collections.abc import Collection, Iterable
from dataclasses import replace

from pipeline.inventory.units import Unit
from pipeline.verify.findings import Findings, noting
from storage_schemas.cache import Cache
from storage_schemas.commits import committed_shards
from storage_schemas.format.layout import ATTRIBUTE, FEATURES
from storage_schemas.format.shard_format import ArraySpec, parse_array_metadata
from storage_schemas.objects.store import Store


def check_group(store: Store, group: str, *, ours: bool, fix: str, found: Findings) -> None:
    """Check a group's metadata.

    Args:
        store: the cache.
        group: path inside `features.zarr`; `""` for the root.
        ours: whether it holds our attribute; others hold none.
        fix: what mends it.
        found: what is wrong is noted here.
    """
    name = metadata_name(group)
    found.known.add(name)
    with noting(found.problems, name, fix):
        document = json.loads(store.read(name))
        attributes = document.pop("attributes")
        if document != {"zarr_format": 3, "node_type": "group"} or set(attributes) != ({ATTRIBUTE} if ours else set()):
            found.note(name, "is not what a group of a cache has", fix)


def check_array(store: Store, spec: ArraySpec, *, lengths: Collection[int], fix: str, found: Findings) -> None:
    """Check an array's metadata.

    Args:
        store: the cache.
        spec: what the manifests imply.
        lengths: how many row slots it may have instead.
        fix: what mends it.
        found: what is wrong is noted here.
    """
    name = metadata_name(spec.path)
    found.known.add(name)
    with noting(found.problems, name, fix):
        stored = parse_array_metadata(spec.path, json.loads(store.read(name)))
        if stored.shape[0] in lengths:
            stored = replace(stored, shape=(spec.shape[0], *stored.shape[1:]))
        for field in ("shape", "dtype", "rows_per_shard", "compression"):
            if (has := getattr(stored, field)) != (expected := getattr(spec, field)):
                problem = f"{field} is {has}, the manifests imply {expected}"
                found.note(name, problem, fix)


def small_array_objects(group: str, arrays: Iterable[tuple[str, int]]) -> set[str]:
    """Return the objects of small arrays.

    Args:
        group: that holds them.
        arrays: name and number of axes, each.
    """
    names = set()
    for array, axes in arrays:
        names |= {metadata_name(f"{group}/{array}"), f"{FEATURES}/{group}/{array}/c" + "/0" * axes}
    return names


def metadata_name(node: str) -> str:
    """Return where the metadata of a group or an array lies, relative to the cache."""
    return "/".join(part for part in (FEATURES, node, "zarr.json") if part)


def copied_back(cache: Cache) -> str:
    """Say how something is mended that no command writes again."""
    return f"put it back from a copy of {cache.store.uri}"


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
