"""The command lines of `verify` and `gc`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from pipeline.command_line import parse, require, require_at_least
from pipeline.config import RunConfig


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Settings of `verify`."""

    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    teacher: str = ""
    """Check this teacher's features and details alone (TEACHER): its name in the cache, or `module:Class`."""
    quick: bool = False
    """Leave the arrays' bytes unread: records, manifests and tables are read, and of array shards their sizes compared.
    What was lost or cut short is found, and nothing that was changed in place."""
    recompute: int = 0
    """Run each teacher again on so many views, drawn by hash, and compare with what is stored."""
    weights: str = ""
    """For `recompute`: where the weights of `teacher` are, when not where its recipe says (WEIGHTS)."""
    source: str = ""
    """For `recompute`: what `teacher` is, `module:Class` or a name of the catalogue, when its recipe does not say."""
    run: RunConfig = field(default_factory=lambda: RunConfig(executor="local"))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GcOptions:
    """Settings of `gc`. It says what can go, and deletes nothing unless told."""

    recipe: str = "demo"
    """Whose teachers' details; see `details`."""
    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    details: bool = False
    """Also the details of the recipe's fixed teachers whose features are complete. A teacher that joins later, or
    another size of it, needs the images again."""
    uploads_older_than: float = 24.0
    """Also unfinished uploads to S3 that began so many hours ago or more: no writer takes that long over a shard."""
    delete: bool = False
    """Delete what was found. Refused while a run writes to the cache: what that is writing is named by nothing yet."""


def verify_options(arguments: Sequence[str]) -> VerifyOptions:
    """Read the command line of `verify`."""
    options = parse("verify", VerifyOptions(), arguments)
    require("CACHE", options.cache)
    require_at_least("recompute", options.recompute, least=0)
    if (options.weights or options.source) and not options.teacher:
        require("TEACHER", "")
    return options


def gc_options(arguments: Sequence[str]) -> GcOptions:
    """Read the command line of `gc`."""
    options = parse("gc", GcOptions(), arguments)
    require("CACHE", options.cache)
    require_at_least("uploads-older-than", options.uploads_older_than, least=0)
    return options
