"""Reading what the groups of a cache say of themselves: its format, its views, its teachers."""

import json
from collections.abc import Iterable
from typing import Any

from storage_schemas.format import document_schemas, layout
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, Problem
from storage_schemas.format.groups import parse_group_metadata
from storage_schemas.format.manifest import CacheManifests, TeacherManifest, ViewsManifest
from storage_schemas.format.schema import require, require_modest
from storage_schemas.objects.store import Store

MOST_BYTES = 2**26
"""Size of a `zarr.json`."""


def require_cache(store: Store) -> str:
    """Check that there is a cache of the format version that this code reads.

    Returns:
        The name of the recipe that made it.

    Raises:
        MissingError: there is no cache.
        ContractError: it has another format version.
        CorruptionError: it does not name its recipe.
    """
    attributes = read_attributes(store, "")
    if attributes is None:
        fix = "run `make extract` first, or point CACHE at a cache"
        raise MissingError("cache", [Problem(place=store.uri, found="holds no features.zarr", fix=fix)])
    if attributes.get("format") not in (layout.FORMAT_VERSION, layout.SEALED_FORMAT):
        known = f"{layout.FORMAT_VERSION} and {layout.SEALED_FORMAT}"
        found = f"has format {attributes.get('format')}, this version of Stillhouse reads {known}"
        raise ContractError("cache", [Problem(place=store.uri, found=found, fix="use the version that wrote it")])
    if not isinstance(attributes.get("recipe"), str):
        raise CorruptionError("cache", [Problem(place=store.uri, found="does not name its recipe")])
    require("root of the cache", attributes, document_schemas.ROOT, "attributes")
    return attributes["recipe"]


def stored_format(store: Store) -> int:
    """Return the version of a cache's format; that of a new cache where there is none yet."""
    attributes = read_attributes(store, "")
    return layout.FORMAT_VERSION if attributes is None else int(attributes["format"])


def read_manifests(store: Store, teachers: Iterable[str]) -> CacheManifests:
    """Read the manifests of the views and of some teachers, each object once.

    Args:
        store: the cache.
        teachers: names of the teachers; those without a manifest are left out.

    Raises:
        MissingError, ContractError, CorruptionError: as `require_cache`.
    """
    recipe, views = require_cache(store), read_attributes(store, "views")
    read = {name: read_attributes(store, f"teachers/{name}") for name in teachers}
    return CacheManifests(
        recipe=recipe,
        views=None if views is None else ViewsManifest.from_attributes(views),
        teachers={
            name: TeacherManifest.from_attributes(attributes)
            for name, attributes in read.items()
            if attributes is not None
        },
    )


def read_views_manifest(store: Store) -> ViewsManifest | None:
    """Return the manifest of the views, or None before any view was cut."""
    attributes = _manifest(store, "views")
    return None if attributes is None else ViewsManifest.from_attributes(attributes)


def read_teacher_manifest(store: Store, teacher: str) -> TeacherManifest | None:
    """Return the manifest of a teacher, or None where the cache has none."""
    attributes = _manifest(store, f"teachers/{teacher}")
    return None if attributes is None else TeacherManifest.from_attributes(attributes)


def teacher_names(store: Store) -> list[str]:
    """Return the names of the teachers whose extraction has begun, sorted."""
    folder = f"{layout.FEATURES}/teachers"
    return [name for name in store.children(folder) if store.exists(f"{folder}/{name}/zarr.json")]


def read_attributes(store: Store, group: str) -> dict[str, Any] | None:
    """Return what a group says of itself, or None where it says nothing yet.

    The groups above an array exist before they say anything.

    Args:
        store: the cache.
        group: path of the group inside `features.zarr`; `""` for the root.

    Raises:
        CorruptionError: its metadata is damaged, or its seal does not match.
    """
    name = "/".join(part for part in (layout.FEATURES, group, "zarr.json") if part)
    try:
        [attributes] = store.read_parsed([name], _parse_group)
    except MissingError:
        return None
    return attributes


def parse_metadata(body: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in a `zarr.json`.

    Args:
        body: its bytes.
        name: of the object, for the error.

    Raises:
        CorruptionError: it is not a JSON object.
    """
    if len(body) > MOST_BYTES:
        found = f"has {len(body)} bytes, metadata has at most {MOST_BYTES}"
        raise CorruptionError("metadata", [Problem(place=name, found=found)])
    try:
        metadata = json.loads(body)
    except ValueError as error:
        raise CorruptionError("metadata", [Problem(place=name, found=f"is not JSON: {error}")]) from error
    except RecursionError as error:
        raise CorruptionError("metadata", [Problem(place=name, found="is nested too deeply")]) from error
    require_modest("metadata", metadata, name)
    if not isinstance(metadata, dict):
        raise CorruptionError("metadata", [Problem(place=name, found="is not a JSON object")])
    return metadata


def _manifest(store: Store, group: str) -> dict[str, Any] | None:
    attributes = read_attributes(store, group)
    if attributes is not None:
        require_cache(store)
    return attributes


def _parse_group(body: bytes, name: str) -> dict[str, Any] | None:
    return parse_group_metadata(parse_metadata(body, name), name)
