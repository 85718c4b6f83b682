"""The command line of `export`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from pipeline.command_line import parse, require
from pipeline.config import RunConfig
from storage_schemas.format.errors import Problem, SettingError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Settings of `export`. What is not named is taken whole, and as it is stored."""

    cache: str = ""
    """The cache that is exported from: a folder, or any URI that fsspec reaches (CACHE). It is only read."""
    to: str = ""
    """Where the export goes, a cache of its own: a folder, or any URI that fsspec reaches (TO)."""
    teachers: tuple[str, ...] = ()
    """Teachers whose features are taken, by their names in the cache, maps of blocks too (TEACHER); all when empty."""
    sets: tuple[str, ...] = ()
    """View sets, such as `low-256`; all when empty."""
    split: Literal["all", "train", "heldout"] = "all"
    """Which views: all, those to train on, or those that are held out."""
    images: str = ""
    """Only views of the images whose keys this file names, one to a line, in UTF-8; of all images when empty."""
    rows_per_shard: int = 0
    """Row slots of each shard (views), the same in every set; as many as in the cache when 0."""
    tokens_per_shard: int = 0
    """Student tokens of a shard instead: they set the row slots of each set as the setting of `views` does."""
    encoding: Literal["keep", "float16", "float32", "int8"] = "keep"
    """Stored type of spatial features. It may say less than is stored, never more."""
    compression: Literal["keep", "none", "zstd"] = "keep"
    """Codec of spatial chunks."""
    details: bool = False
    """Also the details of the fixed teachers among `teachers`, which running them again takes, and nothing else."""
    run: RunConfig = field(default_factory=RunConfig)


def export_options(arguments: Sequence[str]) -> ExportOptions:
    """Read the command line of `export`."""
    options = parse("export", ExportOptions(), arguments)
    require("CACHE", options.cache)
    require("TO", options.to)
    least = {"--rows-per-shard": options.rows_per_shard, "--tokens-per-shard": options.tokens_per_shard}
    problems = [Problem(place=name, found=f"{value} is less than 0") for name, value in least.items() if value < 0]
    if options.rows_per_shard and options.tokens_per_shard:
        found = "both say how large a shard is"
        problems.append(Problem(place="--rows-per-shard, --tokens-per-shard", found=found, fix="give one"))
    if problems:
        raise SettingError("shard size", problems)
    return options
