"""Checking `zarr.json`: every group and array exists, and its metadata is what the manifests imply."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import final

from pipeline.inventory.units import Unit
from pipeline.verify.problems import Findings, collecting
from storage_schemas.cache import Cache
from storage_schemas.commits import committed_shards
from storage_schemas.format.groups import NOT_A_GROUP
from storage_schemas.format.layout import ATTRIBUTE, FEATURES
from storage_schemas.format.shard_format import ArraySpec, parse_array_metadata
from storage_schemas.objects.store import Store
from storage_schemas.read_groups import parse_metadata


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fixes:
    """What to do where the metadata of a unit is damaged."""

    group: str
    """For the group that holds its arrays."""
    array: str
    """For an array."""


def check_group(store: Store, group: str, *, has_attribute: bool, fix: str, findings: Findings) -> None:
    """Check a group's metadata.

    Args:
        store: the cache.
        group: path inside `features.zarr`; `""` for the root.
        has_attribute: whether it must hold the attribute `stillhouse`; other groups hold none.
        fix: what to do where it is damaged.
        findings: problems are added here.
    """
    name = metadata_name(group)
    findings.referenced.add(name)
    with collecting(findings.problems, name, fix):
        document = parse_metadata(store.read(name), name)
        attributes = document.pop("attributes")
        expected = {ATTRIBUTE} if has_attribute else set()
        if document != {"zarr_format": 3, "node_type": "group"} or set(attributes) != expected:
            findings.add(name, NOT_A_GROUP, fix)


def check_array(store: Store, spec: ArraySpec, *, lengths: Collection[int], fix: str, findings: Findings) -> None:
    """Check an array's metadata.

    Args:
        store: the cache.
        spec: what the manifests imply.
        lengths: numbers of row slots that are allowed besides that of `spec`.
        fix: what to do where it is damaged.
        findings: problems are added here.
    """
    name = metadata_name(spec.path)
    findings.referenced.add(name)
    with collecting(findings.problems, name, fix):
        stored = parse_array_metadata(spec.path, parse_metadata(store.read(name), name))
        if stored.shape[0] in lengths:
            stored = replace(stored, shape=(spec.shape[0], *stored.shape[1:]))
        for field in ("shape", "dtype", "rows_per_shard", "compression"):
            if (actual := getattr(stored, field)) != (expected := getattr(spec, field)):
                findings.add(name, f"{field} is {actual}, the manifests imply {expected}", fix)


def check_unit(cache: Cache, unit: Unit, *, group: str, fixes: Fixes, findings: Findings) -> None:
    """Check the group that holds a unit's arrays, and the metadata of the arrays.

    Args:
        cache: the cache.
        unit: the unit.
        group: path of the group inside `features.zarr`.
        fixes: what to do where either is damaged.
        findings: problems are added here.
    """
    lengths = allowed_lengths(cache, unit)
    required = 0 not in lengths
    if required or cache.store.exists(metadata_name(group)):
        check_group(cache.store, group, has_attribute=False, fix=fixes.group, findings=findings)
    for spec in unit.arrays:
        if required or cache.store.exists(metadata_name(spec.path)):
            check_array(cache.store, spec, lengths=lengths, fix=fixes.array, findings=findings)


def allowed_lengths(cache: Cache, unit: Unit) -> list[int]:
    """Return the lengths (row slots) that a unit's arrays may have.

    An array is made longer before the first shard that needs it. So it is as long as one of the generations makes it,
    and not too short for the committed shards. 0 is among them where the array need not exist yet.
    """
    grid = unit.grid
    last = max((shard for shard in committed_shards(cache.store, unit.name) if shard < grid.shards), default=-1)
    grids = [grid.first(generations) for generations in range(1, len(grid.counts) + 1)]
    return [earlier.rows for earlier in grids if earlier.shards > last]


def small_array_objects(group: str, axes: Mapping[str, int]) -> set[str]:
    """Return the objects of small arrays.

    Args:
        group: the group that holds them.
        axes: number of axes of each, by name.
    """
    names = set()
    for array, count in axes.items():
        names |= {metadata_name(f"{group}/{array}"), f"{FEATURES}/{group}/{array}/c" + "/0" * count}
    return names


def metadata_name(node: str) -> str:
    """Return the object that holds the metadata of a group or an array, relative to the cache."""
    return "/".join(part for part in (FEATURES, node, "zarr.json") if part)


def restore_from_copy(cache: Cache) -> str:
    """Return what to do about an object that no command can write again."""
    return f"put it back from a copy of {cache.store.uri}"
