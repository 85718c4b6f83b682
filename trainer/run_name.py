"""The name of a run: the student, with the settings that differ from the recipe's."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.identity import differences, digest
from trainer.run_folder import RunFolder, read_json
from trainer.settings.config import TrainRecipe, under_rules_of
from trainer.settings.unrecorded import completed

UNNAMED = frozenset({"name", "student", "steps"})
"""Settings that are not part of a name: a run that goes on with more steps keeps its own."""
LONGEST_VALUE = 24
"""Characters of a value; of a longer one the digest is given."""
LONGEST = 120
"""Characters of a name; of a longer one the digest of the settings is given."""
DIGITS = 8
"""Hexadecimal digits of a digest in a name."""
FORM = r"[A-Za-z0-9][A-Za-z0-9._=+,-]*"
"""What a name may be: one folder, on every file system, and no option of a command."""


def changed_settings(settings: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that differ from those of its recipe, by their full names, sorted.

    Args:
        settings: of the run, as `TrainRecipe.identity` gives them.
        base: of the recipe as it stands.
    """
    places = [problem.place for problem in differences(base, settings)]
    values = {place: _at(settings, place) for place in places if place not in UNNAMED}
    # a table that was empty stands beside each of its entries
    return {place: value for place, value in values.items() if not (isinstance(value, Mapping) and value)}


def default_name(recipe: TrainRecipe, base: TrainRecipe) -> str:
    """Return the name of a run that the user does not name. It depends on the settings alone.

    Args:
        recipe: the run's settings.
        base: the recipe without any change.
    """
    settings = base.identity()
    changed = changed_settings(recipe.identity(), settings)
    if recipe.student_weights != base.student_weights:  # the identity knows them by their digest
        changed["student.weights"] = recipe.student_weights
    last = [_last_words(place, settings) for place in changed]
    labels = [short if last.count(short) == 1 else place for short, place in zip(last, changed, strict=True)]
    values = [_value_text(value) for value in changed.values()]
    parts = [recipe.student, *(f"{label}={value}" for label, value in zip(labels, values, strict=True))]
    name = "-".join(parts)
    return name if len(name) <= LONGEST else f"{recipe.student}-{digest(changed)[:DIGITS]}"


def choose_folder(runs: Path, name: str, recipe: TrainRecipe, base: TrainRecipe) -> Path:
    """Return the folder of a run.

    Version 0.1.0 named runs by their student alone: such a run is resumed where it is.

    Args:
        runs: folder of all runs.
        name: the name that the user gives; empty for the default.
        recipe: the run's settings.
        base: the recipe without any change.

    Raises:
        SettingError: the name cannot be that of a folder; or settings of a run are to change, and it is not named.
    """
    if name:
        if not re.fullmatch(FORM, name):
            found, fix = "is no name of a run", "use letters, digits and . _ = + , - after a first letter or digit"
            raise SettingError("NAME", [Problem(place=name, found=found, fix=fix)])
        return runs / name
    folder, old = runs / default_name(recipe, base), RunFolder(path=runs / recipe.student)
    if folder.exists():
        return folder
    same = old.identity.exists() and _is_of(read_json(old.identity)["recipe"], recipe)
    if same and not recipe.student_weights:
        return old.path
    if recipe.running.accept_changes:
        found = "settings are to change, and they are part of the name that a run has by default"
        fix = "name the run: make train NAME=…; `make runs` lists those that there are"
        raise SettingError("NAME", [Problem(place="--name", found=found, fix=fix)])
    return folder


def _last_words(place: str, settings: Mapping[str, Any]) -> str:
    """Return the last word of a setting's name; two for an entry of a table, such as the weight of a teacher."""
    group, _, word = place.rpartition(".")
    table = _at(settings, group)
    is_entry = isinstance(table, Mapping) and word not in table
    return ".".join(place.split(".")[-2:]) if is_entry else word


def _is_of(stored: Mapping[str, Any], recipe: TrainRecipe) -> bool:
    """Return whether a stored recipe is this one, where it records less."""
    asked = under_rules_of(stored, recipe).identity()
    return not differences(completed(stored), completed(asked))


def _at(settings: Mapping[str, Any], place: str) -> Any:
    value: Any = settings
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _value_text(value: Any) -> str:
    text = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    plain = len(text) <= LONGEST_VALUE and re.fullmatch(r"[A-Za-z0-9._+-]+", text)
    return text if plain else digest({"": value})[:DIGITS]
