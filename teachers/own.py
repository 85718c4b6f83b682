"""Teachers of the user's own, named `module:Class`."""

import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import Precision, TeacherSpec
from teachers.base import AbstractTeacher

IMPORT_ERRORS = (ImportError, AttributeError, ValueError)
"""Errors whose text alone says why a class cannot be imported."""


def own_class(source: str) -> type[AbstractTeacher]:
    """Import the class that a source names.

    Raises:
        SettingError: it cannot be imported, or is not a concrete teacher that declares its spec.
    """
    module_name, _, class_name = source.partition(":")
    try:
        named = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # the module is the user's: it can raise anything
        found = str(error) if isinstance(error, IMPORT_ERRORS) else f"{type(error).__qualname__}: {error}"
        fix = "the module must be importable from where the command runs"
        raise SettingError(f"teacher {source!r}", [Problem(place="source", found=found, fix=fix)]) from error
    _refuse_class(source, named)
    teacher: type[AbstractTeacher] = named
    return teacher


def build_own(
    source: str, spec: TeacherSpec, *, weights: str, device: str, precision: Precision, **optional: Any
) -> AbstractTeacher:
    """Construct a class of the user's own with `spec`, `device`, `precision`, and the optional settings that are given.

    `weights` (a path), `layers` and `compiled` are passed on only when they are set. Where the constructor has no such
    keyword, the setting is refused, never ignored.

    Raises:
        SettingError: a setting that the class does not take.
    """
    teacher = own_class(source)
    if weights == "hub" or weights.startswith("random:"):
        found, fix = (
            f"{weights!r} is only for the catalogue's models",
            "give 'own', or a path if the class takes a path",
        )
        raise SettingError(f"teacher {source!r}", [Problem(place="weights", found=found, fix=fix)])
    given: dict[str, Any] = {"spec": spec, "device": device, "precision": precision, **optional}
    if weights != "own":
        given["weights"] = weights
    problems = list(mismatched_keywords(source, inspect.signature(teacher).parameters, given))
    if problems:
        raise SettingError(f"teacher {source!r}", problems)
    make: Any = teacher
    built: AbstractTeacher = make(**given)
    return built


def mismatched_keywords(
    source: str, taken: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> Iterator[Problem]:
    """Name the keywords that a class of the user's own does not take, and those that it requires and does not get.

    Args:
        source: `module:Class`, for the messages.
        taken: parameters of its constructor.
        given: keywords that it would get.
    """
    named = {name: parameter for name, parameter in taken.items() if parameter.kind is not parameter.VAR_KEYWORD}
    for keyword, value in given.items():
        if keyword not in named and len(named) == len(taken):
            found, fix = f"is {value!r}, but {source} takes no {keyword}", f"add {keyword}= to __init__"
            yield Problem(place=keyword, found=found, fix=fix)
    for keyword, parameter in named.items():
        if keyword not in given and parameter.default is parameter.empty:
            fix = "give a path" if keyword == "weights" else "give it a default"
            yield Problem(place=keyword, found="is not given, and the class requires it", fix=fix)


def _refuse_class(source: str, named: object) -> None:
    fix = "see docs/adding_a_teacher.md"
    if not (isinstance(named, type) and issubclass(named, AbstractTeacher)):
        wrong = "is not a subclass of teachers.base.AbstractTeacher"
    elif inspect.isabstract(named):
        wrong = f"does not implement {', '.join(sorted(named.__abstractmethods__))}"
    elif not isinstance(getattr(named, "declared", None), TeacherSpec):
        wrong = "declares no spec: `declared = TeacherSpec(...)`"
    else:
        return
    raise SettingError(f"teacher {source!r}", [Problem(place="class", found=wrong, fix=fix)])
