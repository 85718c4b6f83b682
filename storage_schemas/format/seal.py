"""Seals: an object of attributes is stored with the digest of itself, so a damaged one is refused when it is read."""

from collections.abc import Mapping
from typing import Any

from storage_schemas.format.errors import CorruptionError, Problem
from storage_schemas.format.identity import digest

SEAL = "seal"
"""Name of the digest beside the values that it is of."""


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with their seal, which comes last."""
    return {**values, SEAL: digest(values)}


def unsealed(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return values without their seal, after checking it.

    Raises:
        CorruptionError: there is none, or it is that of other values.
    """
    inner = {name: value for name, value in values.items() if name != SEAL}
    if values.get(SEAL) != digest(inner):
        raise CorruptionError("attributes", [Problem(place=place, found="their seal is not that of their values")])
    return inner
