"""A teacher by the name that a user gave: one of a recipe's, or a class of the user's own."""

from pipeline.config import Recipe, TeacherChoice
from storage_schemas.format.errors import MissingError, Problem


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
    from teachers.own import own_class  # imports torch, which the recipes' own teachers do not need yet

    return TeacherChoice(name=own_class(teacher).declared.name, source=teacher, weights="own")
