"""A teacher by the name that a user gave: one of a recipe's, or a class of the user's own."""

from pipeline.config import Recipe, TeacherChoice
from storage_schemas.format.errors import MissingError, Problem
from teachers.source import spec_of


def choose(recipe: Recipe, teacher: str) -> TeacherChoice:
    """Return the recipe's choice of a short name, or a choice for a class of the user's own.

    Raises:
        SettingError: neither.
    """
    if not teacher:
        names = ", ".join(choice.name for choice in recipe.teachers)
        raise MissingError(
            "TEACHER", [Problem(place="--teacher", found="is not given", fix=f"{names}, or module:Class")]
        )
    if ":" not in teacher:
        return recipe.teacher(teacher)
    return TeacherChoice(name=spec_of(teacher).name, source=teacher, weights="own")
