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
    """Settings of `export`. Without any, everything is exported as it is stored."""

    cache: str = ""
    """The cache that is exported: a folder, or any URI that fsspec reaches (CACHE). It is only read."""
    to: str = ""
    """Where the export is written, as a cache of its own: a folder, or any URI that fsspec reaches (TO)."""
    teachers: tuple[str, ...] = ()
    """Teachers whose features are exported, by their names in the cache, and maps of blocks (TEACHER); all when
    empty."""
    sets: tuple[str, ...] = ()
    """View sets that are exported, such as `low-256`; all when empty."""
    split: Literal["all", "train", "heldout"] = "all"
    """Which views are exported: all, those to train on, or those held out for evaluation."""
    images: str = ""
    """A UTF-8 file with the keys of images, one to a line: only their views are exported; those of all images when
    empty."""
    rows_per_shard: int = 0
    """Row slots of a shard (views), the same in every set; as in the source when 0."""
    tokens_per_shard: int = 0
    """Student tokens of a shard, in place of `rows_per_shard`: they give the row slots of each set as they do in
    `views`."""
    encoding: Literal["keep", "float16", "float32", "int8", "pca8"] = "keep"
    """Encoding of spatial features; never more precise than what is stored. `pca8` needs statistics of the source."""
    step: float | None = None
    """Step of `int8` (PHI-S units); as stored, or 8/127, when neither it nor `fidelity` is given. A coarser step than
    the stored one rounds again."""
    fidelity: float | None = None
    """The fidelity at which features are stored: with `int8` in place of `step`, with `pca8` 100 when not given."""
    compression: Literal["keep", "none", "zstd"] = "keep"
    """Codec of spatial chunks."""
    compression_level: int | None = None
    """Level of zstd, 1 to 19; as stored, or 1 where the source is not compressed, when not given."""
    details: bool = False
    """Also export the details of the fixed teachers among `teachers`. Only running such a teacher again reads them."""
    run: RunConfig = field(default_factory=RunConfig)


def export_options(arguments: Sequence[str]) -> ExportOptions:
    """Read the command line of `export`."""
    options = parse("export", ExportOptions(), arguments)
    require("CACHE", options.cache)
    require("TO", options.to)
    least = {"--rows-per-shard": options.rows_per_shard, "--tokens-per-shard": options.tokens_per_shard}
    problems = [Problem(place=name, found=f"{value} is less than 0") for name, value in least.items() if value < 0]
    if options.rows_per_shard and options.tokens_per_shard:
        found = "both set the size of a shard"
        problems.append(Problem(place="--rows-per-shard, --tokens-per-shard", found=found, fix="give only one of them"))
    if problems:
        raise SettingError("shard size", problems)
    return options
