"""The command line of `stats`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from pipeline.command_line import CacheUri, parse, require
from pipeline.config import RunConfig
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.stats import TOLERANCE


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StatsOptions:
    """Settings of `stats`."""

    cache: CacheUri = ""
    teacher: str = ""
    """The teacher to measure (TEACHER); every teacher of the cache when empty."""
    tolerance: float = TOLERANCE
    """Largest residual of a view set that is accepted: the distance of its features from zero mean and unit variance
    (PHI-S units). docs/phi_s.md explains the default."""
    sizes: bool = True
    """Whether to encode a few views of each set, to say what each encoding takes and loses. It reads those views each
    time; statistics that are measured already are not measured again."""
    run: RunConfig = field(default_factory=RunConfig)


def stats_options(arguments: Sequence[str]) -> StatsOptions:
    """Read the command line of `stats`."""
    options = parse("stats", StatsOptions(), arguments)
    require("CACHE", options.cache)
    if not options.tolerance >= 0:
        found = f"{options.tolerance} is less than 0"
        raise SettingError("tolerance", [Problem(place="--tolerance", found=found)])
    return options
