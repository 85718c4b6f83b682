"""Publishing the metadata of groups and arrays, sealed where it says something of ours."""

import json
from typing import Any

from storage_schemas.layout import ATTRIBUTE, FEATURES
from storage_schemas.publish import TEMPORARY, Sink, publish, publish_bytes, require_claim
from storage_schemas.seal import sealed
from storage_schemas.store import Store

__all__ = ["TEMPORARY", "Sink", "publish", "publish_bytes", "publish_group", "publish_json", "require_claim"]


def publish_json(store: Store, name: str, values: Any) -> None:
    """Publish a JSON object, keys in the order given."""
    publish_bytes(store, name, (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def publish_group(store: Store, group: str, attributes: dict[str, Any] | None = None) -> None:
    """Publish the `zarr.json` of a Zarr group (`""` for the root), with our attribute when there is one, sealed."""
    name = "/".join(part for part in (FEATURES, group, "zarr.json") if part)
    if attributes is not None:
        require_claim(store)
    held = {} if attributes is None else {ATTRIBUTE: sealed(attributes)}
    publish_json(store, name, {"zarr_format": 3, "node_type": "group", "attributes": held})
