"""The commands that a message tells its reader to run."""

import shlex

from pipeline.config import TeacherChoice
from pipeline.recipes import RECIPES
from storage_schemas.cache import Cache
from storage_schemas.format.teacher import forward_of


def views_command(cache: Cache, recipe: str) -> str:
    """Return the command that cuts what views are missing. Only the user knows where the images are now."""
    return f"make views RECIPE={shlex.quote(recipe)} CACHE={shlex.quote(cache.store.uri)} DATA=…"


def extract_command(cache: Cache, recipe: str, teacher: str) -> str:
    """Return the command that finishes a teacher's features. A class of the user's own is known only to the user."""
    name = forward_of(teacher)
    known = any(choice.name == name for choice in recipe_teachers(recipe))
    named = name if known else f"<module:Class of {name}>"
    layers = f' ARGS="--choice.layers {teacher.removeprefix(f"{name}-block")}"' if name != teacher else ""
    return f"make extract RECIPE={shlex.quote(recipe)} CACHE={shlex.quote(cache.store.uri)} TEACHER={named}{layers}"


def detail_command(cache: Cache, recipe: str, teacher: str) -> str:
    """Return the command that cuts what is missing of a fixed teacher's details."""
    if any(choice.name == teacher for choice in recipe_teachers(recipe)):
        return views_command(cache, recipe)
    return f"{extract_command(cache, recipe, teacher)} DATA=…"


def export_command(cache: Cache) -> str:
    """Return the command that finishes an export. Only the user knows which cache it was taken of, and with what."""
    return f"make export CACHE=… TO={shlex.quote(cache.store.uri)}"


def stats_command(cache: Cache, teacher: str) -> str:
    """Return the command that measures a teacher's features."""
    return f"make stats CACHE={shlex.quote(cache.store.uri)} TEACHER={teacher}"


def recipe_teachers(recipe: str) -> tuple[TeacherChoice, ...]:
    """Return the teachers of a recipe; none for a recipe of a name that we do not have."""
    return RECIPES[recipe]().teachers if recipe in RECIPES else ()
