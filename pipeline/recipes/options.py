"""The command line of `photographs`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from pipeline.command_line import parse, require


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographsOptions:
    """Copy the demo's photographs into a folder."""

    data: str = ""
    """Folder to copy them into (DATA)."""


def photographs_options(arguments: Sequence[str]) -> PhotographsOptions:
    """Read the command line of `photographs`."""
    options = parse("photographs", PhotographsOptions(), arguments)
    require("DATA", options.data)
    return options
