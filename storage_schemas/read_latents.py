"""Reading and writing the latents of a teacher, and what the entries of an array stand for."""

from collections.abc import Mapping
from typing import Any

from storage_schemas.format import document_schemas
from storage_schemas.format.encodings import Coding
from storage_schemas.format.errors import CorruptionError, MissingError, Problem
from storage_schemas.format.latents import Latents, latents_digest
from storage_schemas.format.schema import require
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.objects.publish import publish_group
from storage_schemas.objects.store import Store
from storage_schemas.read_groups import read_attributes
from storage_schemas.small_arrays import read_small_arrays, write_small_arrays

LATENT_ARRAYS = ("basis", "steps")
"""Arrays of a teacher's latents, in the order in which they are hashed."""


def latents_group(teacher: str) -> str:
    """Return the group of a teacher's latents, inside `features.zarr`."""
    return f"teachers/{teacher}/latents"


def write_latents(store: Store, teacher: str, latents: Latents, fidelity: float) -> None:
    """Publish a teacher's latents. The attributes of their group are written last: without them there are none.

    Args:
        store: the cache.
        teacher: whose they are.
        latents: the latents.
        fidelity: that they were chosen for.
    """
    group = latents_group(teacher)
    write_small_arrays(store, group, {"basis": latents.basis, "steps": latents.steps})
    publish_group(store, group, {"sha256": latents_digest(latents), "fidelity": fidelity})


def read_latents(store: Store, teacher: str) -> tuple[Latents, Mapping[str, Any]] | None:
    """Return a teacher's latents and the attributes of their group; None where there are none.

    Raises:
        MissingError: an array is not there.
        CorruptionError: its arrays are not those that its attributes name.
    """
    group = latents_group(teacher)
    attributes = read_attributes(store, group)
    if attributes is None:
        return None
    require("latents", attributes, document_schemas.LATENTS, group)
    basis, steps = read_small_arrays(store, {f"{group}/{name}": None for name in LATENT_ARRAYS})
    latents = Latents(basis=basis, steps=steps)
    if latents_digest(latents) != attributes["sha256"]:
        raise CorruptionError("latents", [Problem(place=group, found="its arrays are not those that it names")])
    return latents, attributes


def read_coding(store: Store, spec: ArraySpec) -> Coding:
    """Return what the entries of an array of features stand for.

    Args:
        store: the cache.
        spec: the array.

    Raises:
        MissingError: it holds latents, and these are gone.
        CorruptionError: the latents are damaged, or others than the array was stored in.
        ContractError: it holds pixels.
    """
    if not spec.latents:
        return spec.coding
    teacher = spec.path.split("/")[1]
    read = read_latents(store, teacher)
    if read is None:
        found, fix = "are gone, and features were stored in them", "put them back from a copy of the cache"
        raise MissingError("latents", [Problem(place=latents_group(teacher), found=found, fix=fix)])
    latents, attributes = read
    if attributes["sha256"] != spec.latents:
        found = f"are not those that {spec.path} is stored in"
        raise CorruptionError("latents", [Problem(place=latents_group(teacher), found=found)])
    return Coding(encoding="pca8", latents=latents)
