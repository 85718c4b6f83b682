"""The names of students: presets, timm models, and timm models with RADIO's additions."""

import difflib
from collections.abc import Sequence

import timm

from storage_schemas.format.errors import Problem, SettingError
from trainer.student.vit.presets import PRESETS

MOST_SIMILAR = 10
"""Names that a refusal suggests, where they begin with the name that was given."""
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
        similar = _similar(name.partition(".")[0], [*PRESETS, *timm.list_models()])
        fix = f"similar names: {', '.join(similar)}" if similar else "`timm.list_models()` lists all names"
        raise SettingError("student", [Problem(place=name, found="is not a timm model", fix=fix)])


def _similar(name: str, known: Sequence[str]) -> list[str]:
    """Return names that begin with this one, the shortest first; where none does, those that are spelt like it."""
    longer = sorted((other for other in known if other.startswith(name)), key=lambda other: (len(other), other))
    return longer[:MOST_SIMILAR] or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
