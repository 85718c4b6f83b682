"""Types and array shapes of the project's functions, checked at every call while tests run.

jaxtyping binds the arguments and opens a scope for the names of axes at each call, which takes many times as long as
the check by beartype alone. So functions whose signatures name no array are checked by beartype, all others by both.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, get_args

import beartype
import jaxtyping

_of_arrays = jaxtyping.jaxtyped
# the numeric tower: an int may stand where a float is asked for, as it may for mypy
_of_types = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def check_calls(packages: Iterable[str]) -> None:
    """Check every call of a function or dataclass of these packages, which have to be imported after this."""
    jaxtyping.jaxtyped = _checked
    jaxtyping.install_import_hook(list(packages), "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


def _checked(item: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Decorate a function, or the `__init__` of a dataclass, as jaxtyping's hook has each of them decorated."""
    if item is None:
        return functools.partial(_checked, typechecker=typechecker)
    if inspect.isclass(item) and "__init__" in vars(item) and dataclasses.is_dataclass(item):
        item.__init__ = _checked(item.__init__, typechecker=typechecker)  # type: ignore[misc]
        return item
    if not inspect.isfunction(item) or any(map(_names_array, inspect.get_annotations(item).values())):
        return _of_arrays(item, typechecker=typechecker)
    return _by_types(item)


def _by_types(function: Callable[..., Any]) -> Callable[..., Any]:
    checked = _of_types(function)

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        return (function if jaxtyping.config.jaxtyping_disable else checked)(*args, **named)

    return call


def _names_array(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_names_array, get_args(annotation)))
