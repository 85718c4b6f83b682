"""The command lines of `verify`, `gc` and `drop`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from pipeline.command_line import CacheUri, parse, require, require_at_least
from pipeline.config import RunConfig


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Settings of `verify`."""

    cache: CacheUri = ""
    teacher: str = ""
    """Check only this teacher's features and details (TEACHER): its name in the cache, `timm:<model.tag>` or
    `module:Class`."""
    quick: bool = False
    """Do not read the bytes of arrays. Records, manifests and tables are read, and the sizes of array shards compared:
    this finds shards that are lost or cut short, but not bytes that were changed in place."""
    independent: int = 0
    """Read so many chunks of every array, drawn by hash, through zarr-python too, and compare them byte for byte with
    what our own reader gives. All chunks where an array has fewer."""
    recompute: int = 0
    """Run each teacher again on so many views, drawn by hash, and compare its features with the stored ones."""
    weights: str = ""
    """For `recompute`: the weights of `teacher`, where they are not those of its recipe (WEIGHTS)."""
    upsampler_weights: str = ""
    """For `recompute`: the weights of the upsampler, where they are not those of the recipe."""
    source: str = ""
    """For `recompute`: the source of `teacher`, a name of the catalogue, `timm:<model.tag>` or `module:Class`, where
    its recipe does not name it."""
    run: RunConfig = field(default_factory=lambda: RunConfig(executor="local"))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GcOptions:
    """Settings of `gc`. It names what can be deleted, and deletes it only with `delete`."""

    recipe: str = "demo"
    """The recipe whose teachers `details` means."""
    cache: CacheUri = ""
    details: bool = False
    """Also the details of the recipe's fixed teachers whose features are complete. A fixed teacher that is added later,
    or another size of it, needs the images again."""
    uploads_older_than: float = 24.0
    """Also unfinished uploads to S3 that began this many hours ago or more: no writer takes that long for a shard."""
    foreign: tuple[str, ...] = ()
    """Also these files that Stillhouse did not write, by their names as `gc` lists them. Others are left alone."""
    delete: bool = False
    """Delete what was found. Refused while a run writes to the cache: nothing names yet what that run is writing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DropOptions:
    """Settings of `drop`. It names what of a teacher can be deleted, and deletes it only with `delete`."""

    cache: CacheUri = ""
    teacher: str = ""
    """The teacher (TEACHER): its name in the cache, or `module:Class`. The map of a block is a teacher of its own."""
    sets: tuple[str, ...] = ()
    """Only these view sets, such as `low-128`. The teacher then is unfinished, and its PHI-S map stays. Not given: the
    whole teacher."""
    details: bool = False
    """Also the windows that a fixed teacher saw at its own scale. To run it again, the images are needed."""
    delete: bool = False
    """Delete what was found. Refused while a run writes to the cache."""


def verify_options(arguments: Sequence[str]) -> VerifyOptions:
    """Read the command line of `verify`."""
    options = parse("verify", VerifyOptions(), arguments)
    require("CACHE", options.cache)
    require_at_least("recompute", options.recompute, least=0)
    require_at_least("independent", options.independent, least=0)
    if (options.weights or options.source) and not options.teacher:
        require("TEACHER", "")
    return options


def gc_options(arguments: Sequence[str]) -> GcOptions:
    """Read the command line of `gc`."""
    options = parse("gc", GcOptions(), arguments)
    require("CACHE", options.cache)
    require_at_least("uploads-older-than", options.uploads_older_than, least=0)
    return options


def drop_options(arguments: Sequence[str]) -> DropOptions:
    """Read the command line of `drop`."""
    options = parse("drop", DropOptions(), arguments)
    require("CACHE", options.cache)
    require("TEACHER", options.teacher)
    return options
