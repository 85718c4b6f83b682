"""The teacher that a user names: a teacher of the recipe, or a class of the user's own."""

from pipeline.config import Recipe, TeacherChoice
from storage_schemas.format.errors import MissingError, Problem
from teachers.source import spec_of


def choose(recipe: Recipe, teacher: str) -> TeacherChoice:
    """Return the recipe's teacher of that name, or a choice for a class of the user's own (`module:Class`).

    Raises:
        MissingError: no teacher is named.
        SettingError: the recipe has no such teacher, or there is no such class.
    """
    if not teacher:
        names = ", ".join(choice.name for choice in recipe.teachers)
        raise MissingError(
            "TEACHER", [Problem(place="--teacher", found="is not given", fix=f"{names}, or module:Class")]
        )
    if ":" not in teacher:
        return recipe.teacher(teacher)
    return TeacherChoice(name=spec_of(teacher).name, source=teacher, weights="own")
