"""The teacher that a user names: a teacher of the recipe, a model of a library, or a class of the user's own."""

from pipeline.config import Recipe, TeacherChoice
from storage_schemas.format.errors import MissingError, Problem
from teachers.source import entry_of, is_own, name_in_cache


def choose(recipe: Recipe, teacher: str) -> TeacherChoice:
    """Return the recipe's teacher of that name, or a choice for `timm:<model.tag>` or `module:Class`.

    Of a recipe that names no teachers, any name of the catalogue is one.

    Raises:
        MissingError: no teacher is named.
        SettingError: the recipe has no such teacher, or there is no such class.
    """
    if not teacher:
        names = ", ".join(choice.name for choice in recipe.teachers)
        raise MissingError(
            "TEACHER",
            [Problem(place="--teacher", found="is not given", fix=f"{names}, timm:<model.tag>, or module:Class")],
        )
    if ":" not in teacher and not recipe.teachers:
        return TeacherChoice(name=teacher, source=entry_of(teacher).spec.name)
    if ":" not in teacher:
        return recipe.teacher(teacher)
    weights = "own" if is_own(teacher) else "hub"
    return TeacherChoice(name=name_in_cache(teacher), source=teacher, weights=weights)
