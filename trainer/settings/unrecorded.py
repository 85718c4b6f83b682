"""Settings that runs of earlier versions do not record, and what they stand for: such a run goes on as it began."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

UNRECORDED: Mapping[str, Any] = MappingProxyType(
    {
        "data.student_shifts": "uniform",
        "average.ramp": True,
        "damp_layers": "all-linear",
        "loss.balance": "teacher",
        "heads.attention_bias": True,
        "data.order": "table",
    }
)
"""Name of a setting of `TrainRecipe` → its value in runs that do not record it."""


def unrecorded(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a stored recipe does not record, with the values that they stand for.

    Args:
        stored: the recipe in the identity of a run.
    """
    missing = {}
    for name, value in UNRECORDED.items():
        part, _, setting = name.rpartition(".")
        if setting not in (stored.get(part, {}) if part else stored):
            missing[name] = value
    return missing


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored recipe with the settings that it does not record."""
    recipe = dict(stored)
    for name, value in unrecorded(stored).items():
        part, _, setting = name.rpartition(".")
        if part:
            recipe[part] = {**recipe.get(part, {}), setting: value}
        else:
            recipe[setting] = value
    return recipe
