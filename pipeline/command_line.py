"""The command line of each command: its settings with their docstrings as help, parsed by tyro and checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, final

import tyro

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import SizeRule, SummaryKind

Options = TypeVar("Options")

CacheUri = Annotated[
    str, tyro.conf.arg(help="Where the cache is: a folder, or any URI that fsspec can read and write (CACHE).")
]
"""The setting `--cache`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeachersOptions:
    """Prints the catalogue of teachers, or all that is known of one teacher before its weights are read."""

    name: str = ""
    """Describe this teacher alone (NAME): a name of the catalogue, `timm:<model.tag>`, `hf:<repository or folder>`, or
    `module:Class`."""
    in_cache: bool = False
    """Print only the name that this teacher has in a cache, for scripts; nothing where no name is given."""
    summary: SummaryKind = "own"
    """For a model of timm or transformers: its summary, as `--choice.summary`."""
    size_rule: SizeRule | None = None
    """For a model of timm or transformers: which sizes it gets, as `--choice.size-rule`."""


def parse(command: str, default: Options, arguments: Sequence[str]) -> Options:
    """Parse a command line over defaults; a wrong one ends the process with status 2 and a message."""
    program = f"python -m pipeline {command}"
    kind: Any = Annotated[type(default), tyro.conf.configure(tyro.conf.FlagCreatePairsOff)]
    return tyro.cli(kind, prog=program, default=default, args=list(arguments))


def require(name: str, value: str) -> None:
    """Refuse a setting that is not given.

    Raises:
        SettingError: `value` is empty.
    """
    if not value:
        raise SettingError(name, [Problem(place=f"--{name.lower()}", found="is not given", fix=f"make … {name}=…")])


def require_at_least(name: str, value: float, least: float) -> None:
    """Refuse a setting that is too small, or not a number.

    Raises:
        SettingError: `value` is less than `least`, or NaN.
    """
    if not value >= least:
        raise SettingError(name, [Problem(place=f"--{name}", found=f"{value} is less than {least}")])


COMMAND_HELP: dict[str, str] = {
    "plan": "what a run would make and cost; with --probe, as measured here",
    "views": "cut views from the images",
    "preview": "a picture of some canvases with each teacher's window, and of mosaics",
    "extract": "run one teacher over the views; cut them first where they are missing",
    "stats": "measure the stored features: PHI-S residual, dispersion, fidelity",
    "train": "train a student on Ray; without Ray: python -m trainer train",
    "inspect": "what is in a cache, and what is unfinished",
    "verify": "check that a cache holds exactly what was committed",
    "export": "copy a subset of a cache, re-sharded or re-encoded, to a cache of its own",
    "gc": "what can be deleted: leftovers of killed runs, details that no teacher needs; --delete deletes it",
    "drop": "what a cache holds of one teacher, or of view sets of it; --delete deletes it",
    "compact": "seal the commit records into a few files, so that a reader needs few requests",
    "teachers": "the catalogue of teachers; with --name, what is known of one teacher",
    "labels": "the labels of the images in DATA, as a CSV file for evaluation",
    "text-vectors": "vectors of class names or captions, from the text tower of SigLIP2",
    "photographs": "copy the demo's photographs to a folder",
}
"""Every command, with what it does."""


def usage(recipes: Iterable[str]) -> str:
    """Return what `python -m pipeline --help` prints.

    Args:
        recipes: the names that RECIPE takes.
    """
    lines = [f"  {command:<12} {does}" for command, does in COMMAND_HELP.items()]
    head = "python -m pipeline COMMAND [--help] [settings]"
    return "\n".join([head, "", *lines, "", f"Recipes: {', '.join(recipes)}."])
