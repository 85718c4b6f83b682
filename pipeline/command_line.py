"""The command line of each stage: a recipe's fields, to be overridden by name, with their docstrings as help."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, final

import tyro

from pipeline.recipes import RECIPES
from storage_schemas.format.errors import Problem, SettingError

Options = TypeVar("Options")


def parse(command: str, default: Options, arguments: Sequence[str]) -> Options:
    """Read a command line over defaults; a wrong one ends the process with status 2 and says why."""
    program = f"python -m pipeline {command}"
    kind: Any = Annotated[type(default), tyro.conf.configure(tyro.conf.FlagCreatePairsOff)]
    return tyro.cli(kind, prog=program, default=default, args=list(arguments))


def named(arguments: Sequence[str], name: str, default: str) -> str:
    """Return the value of `--name value` or `--name=value`: what must be known before the rest can be read."""
    value = default
    for position, argument in enumerate(arguments):
        if argument == f"--{name}" and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith(f"--{name}="):
            value = argument.partition("=")[2]
    return value


def require(name: str, value: str) -> None:
    """Refuse a setting that is not given."""
    if not value:
        raise SettingError(name, [Problem(place=f"--{name.lower()}", found="is not given", fix=f"make … {name}=…")])


COMMAND_HELP: dict[str, str] = {
    "plan": "what a run would make and cost, stated or measured (--probe); writes nothing",
    "views": "cut the views",
    "preview": "a contact sheet: canvases with every teacher's window, and mosaics",
    "extract": "run one teacher over the views (cutting them first where they are missing)",
    "stats": "measure what is stored: PHI-S residual, dispersion",
    "train": "train a student on Ray; without Ray: python -m trainer train",
    "inspect": "what is in a cache, and how far each stage is",
    "verify": "check that what is there is what was committed",
    "export": "a subset of a cache, re-sharded or re-encoded, as a cache of its own in another place",
    "gc": "what can go: leftovers of killed runs, details that are done with; deletes them when told",
    "teachers": "the catalogue of teachers",
    "photographs": "lay out the demo's photographs as a folder",
}
"""Every command, with what it does."""

USAGE = "\n".join(
    [
        "python -m pipeline COMMAND [--help] [settings]",
        "",
        *(f"  {command:<12} {says}" for command, says in COMMAND_HELP.items()),
        "",
        f"Recipes: {', '.join(RECIPES)}.",
    ]
)
"""What `python -m pipeline --help` says."""

Command = Callable[[Sequence[str]], None]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeachersOptions:
    """Prints the catalogue of teachers; there is nothing to set."""


def require_at_least(name: str, value: float, least: float) -> None:
    """Refuse a setting that is less than it may be."""
    if not value >= least:
        raise SettingError(name, [Problem(place=f"--{name}", found=f"{value} is less than {least}")])
