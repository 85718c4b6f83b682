"""The names of students: presets, timm models, and timm models with RADIO's additions."""

import difflib

import timm

from storage_schemas.format.errors import Problem, SettingError
from trainer.student.vit.presets import PRESETS

EXTENDED = "radio_"
"""Prefix of a timm vision transformer's name that asks for RADIO's additions."""


def is_extended(name: str) -> bool:
    """Return whether a student's name asks for RADIO's additions."""
    return name in PRESETS or name.startswith(EXTENDED)


def require_timm(name: str) -> None:
    """Refuse a name that is not a timm model, and suggest the most similar names.

    Raises:
        SettingError: timm has no model of that name.
    """
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name.partition(".")[0], [*PRESETS, *timm.list_models()], n=3, cutoff=0.5)
        fix = f"similar names: {', '.join(similar)}" if similar else "`timm.list_models()` lists all names"
        raise SettingError("student", [Problem(place=name, found="is not a timm model", fix=fix)])
