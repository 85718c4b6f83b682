"""Seals: attributes are stored with their own digest, so that damaged attributes are refused when they are read."""

from collections.abc import Mapping
from typing import Any

from storage_schemas.format.errors import CorruptionError, Problem
from storage_schemas.format.identity import digest

SEAL = "seal"
"""Name of the digest, beside the values."""


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with their seal as the last of them."""
    return {**values, SEAL: digest(values)}


def unsealed(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return values without their seal, after checking it.

    Args:
        values: values and their seal.
        place: where they lie, for the error.

    Raises:
        CorruptionError: there is no seal, or it does not match the values.
    """
    inner = {name: value for name, value in values.items() if name != SEAL}
    if values.get(SEAL) != digest(inner):
        raise CorruptionError("attributes", [Problem(place=place, found="their seal does not match their values")])
    return inner
