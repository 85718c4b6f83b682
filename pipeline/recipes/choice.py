"""The teacher that a user names: a teacher of the recipe, or a class of the user's own."""

from pipeline.config import Recipe, TeacherChoice
from storage_schemas.format.errors import MissingError, Problem


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
    from teachers.own import own_class  # imported late: it imports torch, which a recipe's teachers do not need yet

    return TeacherChoice(name=own_class(teacher).declared.name, source=teacher, weights="own")
