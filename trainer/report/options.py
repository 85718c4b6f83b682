"""The command line of a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import tyro

from storage_schemas.format.errors import Problem, SettingError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Report on a cache and on the students trained from it: a table, and one HTML page."""

    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    runs: Path = Path("runs")
    """Folder of runs, each in a folder of its student's name (RUNS). Without any, the report is on the cache alone."""
    page: Path = Path("out", "report.html")
    """File that the page is written to; one that is there is replaced (REPORT)."""


def report_options(arguments: Sequence[str]) -> ReportOptions:
    """Read the command line of `report`. A wrong one ends the process with status 2 and says why.

    Raises:
        SettingError: no cache is named.
    """
    options = tyro.cli(ReportOptions, prog="python -m trainer report", args=list(arguments))
    if not options.cache:
        raise SettingError("CACHE", [Problem(place="--cache", found="is not given", fix="make … CACHE=…")])
    return options
