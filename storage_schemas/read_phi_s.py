"""Reading the PHI-S map of a teacher."""

from collections.abc import Mapping
from typing import Any

from storage_schemas.format import document_schemas
from storage_schemas.format.errors import CorruptionError, MissingError, Problem
from storage_schemas.format.phi_s import PhiS, phi_s_digest
from storage_schemas.format.schema import require
from storage_schemas.objects.store import Store
from storage_schemas.read_groups import read_attributes
from storage_schemas.small_arrays import read_small_arrays, require_shape

PHI_S_ARRAYS = ("mean", "rotation", "scale")
"""Arrays of a teacher's PHI-S, in the order in which they are hashed."""


def read_phi_s(store: Store, teacher: str) -> PhiS | None:
    """Return a teacher's frozen PHI-S map, or None before it was fitted.

    Raises:
        MissingError: an array is not there.
        CorruptionError: its arrays are not those that were frozen.
    """
    attributes = read_attributes(store, _group(teacher))
    return None if attributes is None else phi_s_of(store, teacher, attributes)


def require_phi_s(store: Store, teacher: str) -> tuple[PhiS, dict[str, Any]]:
    """Return the PHI-S map that a teacher's features were stored under, and the attributes of its group.

    Raises:
        MissingError: it is gone.
        CorruptionError: its arrays are not those that were frozen.
    """
    attributes = read_attributes(store, _group(teacher))
    if attributes is None:
        found = "is gone, and features were stored under it"
        fix = "put it back from a copy of the cache, or make a new cache"
        raise MissingError("PHI-S", [Problem(place=_group(teacher), found=found, fix=fix)])
    return phi_s_of(store, teacher, attributes), attributes


def phi_s_of(store: Store, teacher: str, attributes: Mapping[str, Any]) -> PhiS:
    """Return a teacher's frozen PHI-S map, given the attributes of its group.

    Raises:
        MissingError: an array is not there.
        CorruptionError: its arrays are not those that were frozen.
    """
    group = _group(teacher)
    require("PHI-S", attributes, document_schemas.PHI_S, group)
    mean, rotation, scale = read_small_arrays(store, {f"{group}/{name}": None for name in PHI_S_ARRAYS})
    require_shape(f"{group}/mean", mean, (max(1, mean.size),))
    require_shape(f"{group}/rotation", rotation, (mean.size, mean.size))
    require_shape(f"{group}/scale", scale, ())
    if not scale > 0:
        raise CorruptionError("PHI-S", [Problem(place=f"{group}/scale", found=f"{float(scale)} is not above 0")])
    phi_s = PhiS(mean=mean, rotation=rotation, scale=float(scale))
    if phi_s_digest(phi_s) != attributes.get("sha256"):
        raise CorruptionError("PHI-S", [Problem(place=group, found="its arrays are not those that were frozen")])
    return phi_s


def _group(teacher: str) -> str:
    return f"teachers/{teacher}/phi_s"
