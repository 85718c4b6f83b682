"""The commands that messages tell their reader to run."""

import shlex

from pipeline.config import TeacherChoice
from pipeline.recipes import RECIPES
from storage_schemas.cache import Cache
from storage_schemas.format.teacher import forward_of
from teachers.catalogue import CATALOGUE


def views_command(cache: Cache, recipe: str) -> str:
    """Return the command that cuts the missing views. It leaves DATA open: only the user knows where the images are."""
    return f"make views RECIPE={shlex.quote(recipe)} CACHE={shlex.quote(cache.store.uri)} DATA=…"


def extract_command(cache: Cache, recipe: str, teacher: str) -> str:
    """Return the command that finishes a teacher's features. Only the user knows the source of a class of their own."""
    name = forward_of(teacher)
    choices = recipe_teachers(recipe)
    known = any(choice.name == name for choice in choices) or (not choices and name in CATALOGUE)
    named = name if known else f"<module:Class of {name}>"
    layers = f' ARGS="--choice.layers {teacher.removeprefix(f"{name}-block")}"' if name != teacher else ""
    return f"make extract RECIPE={shlex.quote(recipe)} CACHE={shlex.quote(cache.store.uri)} TEACHER={named}{layers}"


def detail_command(cache: Cache, recipe: str, teacher: str) -> str:
    """Return the command that cuts the missing details of a fixed teacher."""
    if any(choice.name == teacher for choice in recipe_teachers(recipe)):
        return views_command(cache, recipe)
    return f"{extract_command(cache, recipe, teacher)} DATA=…"


def export_command(cache: Cache) -> str:
    """Return the command that finishes an export. Only the user knows its source cache and its other settings."""
    return f"make export CACHE=… TO={shlex.quote(cache.store.uri)}"


def stats_command(cache: Cache, teacher: str) -> str:
    """Return the command that measures a teacher's features."""
    return f"make stats CACHE={shlex.quote(cache.store.uri)} TEACHER={teacher}"


def compact_command(cache: Cache) -> str:
    """Return the command that seals the commit log."""
    return f"make compact CACHE={shlex.quote(cache.store.uri)}"


def forget_command(cache: Cache, unit: str, shard: int) -> str:
    """Return the command that takes a shard out of a sealed commit log, so that it counts as missing."""
    return f'{compact_command(cache)} ARGS="--forget {unit}/{shard:05d}"'


def recipe_teachers(recipe: str) -> tuple[TeacherChoice, ...]:
    """Return the teachers of a recipe; none where there is no recipe of that name."""
    return RECIPES[recipe]().teachers if recipe in RECIPES else ()
