"""The command line of `compact`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from pipeline.command_line import CacheUri, parse, require


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CompactOptions:
    """Settings of `compact`. It seals commit records into a few large files, which readers take instead of the records.

    Nothing that is committed is changed or deleted, but what `forget` names.
    """

    cache: CacheUri = ""
    forget: tuple[str, ...] = ()
    """Take these shards out of the commit log first, by unit and number as `verify` names them:
    `teachers/dinov3/low-256/00012`. They count as missing then, and the stage that wrote them writes them again."""


def compact_options(arguments: Sequence[str]) -> CompactOptions:
    """Read the command line of `compact`."""
    options = parse("compact", CompactOptions(), arguments)
    require("CACHE", options.cache)
    return options
