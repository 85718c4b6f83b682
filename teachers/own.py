"""Teachers of the user's own, named `module:Class`."""

import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import Precision, TeacherSpec
from teachers.base import AbstractTeacher


def own_class(source: str) -> type[AbstractTeacher]:
    """Import the class that a source names.

    Raises:
        SettingError: it does not import, or is not a concrete teacher that declares its spec.
    """
    module_name, _, class_name = source.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        fix = "the module must be importable from where the command runs"
        raise SettingError(f"teacher {source!r}", [Problem(place="source", found=str(error), fix=fix)]) from error
    _refuse_class(source, found)
    teacher: type[AbstractTeacher] = found
    return teacher


def build_own(
    source: str, spec: TeacherSpec, *, weights: str, device: str, precision: Precision, **asked: Any
) -> AbstractTeacher:
    """Construct a class of the user's own with `spec`, `device`, `precision`, and what else was asked for.

    `weights` (a path), `layers` and `compiled` are handed on only when a recipe sets them; a class whose constructor
    lacks such a keyword refuses the setting rather than overlooking it.

    Raises:
        SettingError: a setting that the class does not take.
    """
    teacher = own_class(source)
    if weights == "hub" or weights.startswith("random:"):
        found, fix = f"{weights!r} is for the catalogue's models", "give 'own', or a path if the class takes one"
        raise SettingError(f"teacher {source!r}", [Problem(place="weights", found=found, fix=fix)])
    given: dict[str, Any] = {"spec": spec, "device": device, "precision": precision, **asked}
    if weights != "own":
        given["weights"] = weights
    problems = list(_keywords_at_odds(source, inspect.signature(teacher).parameters, given))
    if problems:
        raise SettingError(f"teacher {source!r}", problems)
    make: Any = teacher
    built: AbstractTeacher = make(**given)
    return built


def _keywords_at_odds(
    source: str, taken: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> Iterator[Problem]:
    named = {name: each for name, each in taken.items() if each.kind is not each.VAR_KEYWORD}
    for keyword, value in given.items():
        if keyword not in named and len(named) == len(taken):
            found, fix = f"{value!r}, but {source} takes no {keyword}", f"add {keyword}= to __init__"
            yield Problem(place=keyword, found=found, fix=fix)
    for keyword, parameter in named.items():
        if keyword not in given and parameter.default is parameter.empty:
            fix = "give a path" if keyword == "weights" else "give it a default"
            yield Problem(place=keyword, found="not given, and the class needs it", fix=fix)


def _refuse_class(source: str, found: object) -> None:
    fix = "see docs/adding_a_teacher.md"
    if not (isinstance(found, type) and issubclass(found, AbstractTeacher)):
        wrong = "is not a subclass of teachers.base.AbstractTeacher"
    elif inspect.isabstract(found):
        wrong = f"does not implement {', '.join(sorted(found.__abstractmethods__))}"
    elif not isinstance(getattr(found, "declared", None), TeacherSpec):
        wrong = "declares no spec: `declared = TeacherSpec(...)`"
    else:
        return
    raise SettingError(f"teacher {source!r}", [Problem(place="class", found=wrong, fix=fix)])
