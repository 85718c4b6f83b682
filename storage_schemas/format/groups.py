"""The `zarr.json` of a Zarr group: what the group says of itself is one attribute of ours, sealed."""

from collections.abc import Mapping
from typing import Any

from storage_schemas.format import layout
from storage_schemas.format.errors import CorruptionError, Problem
from storage_schemas.format.seal import sealed, unsealed

NOT_A_GROUP = "is not the metadata of a group in a cache"
"""What is found where a group's metadata says anything else than it may."""


def group_metadata(attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the `zarr.json` of a group.

    Args:
        attributes: what the group says of itself, JSON-ready; None for a group that only holds others.
    """
    ours = {} if attributes is None else {layout.ATTRIBUTE: sealed(attributes)}
    return {"zarr_format": 3, "node_type": "group", "attributes": ours}


def parse_group_metadata(metadata: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    """Return what a group says of itself, or None where it says nothing.

    Args:
        metadata: its `zarr.json`.
        place: where it lies, for the error.

    Raises:
        CorruptionError: it is not what `group_metadata` writes, or its seal does not match its values.
    """
    match metadata:
        case {"zarr_format": 3, "node_type": "group", "attributes": {**others}, **rest} if not rest and not others:
            return None
        case {"zarr_format": 3, "node_type": "group", "attributes": {layout.ATTRIBUTE: dict(ours), **others}, **rest}:
            if not rest and not others:
                return unsealed(ours, place)
    raise CorruptionError("group", [Problem(place=place, found=NOT_A_GROUP)])
