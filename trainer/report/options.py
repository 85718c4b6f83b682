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
    """The cache: a folder, or a URI such as s3://bucket/prefix (CACHE)."""
    runs: Path = Path("runs")
    """Folder of runs (RUNS), each in the subfolder with the name of its student. If there is no run, the report is
    about the cache only."""
    page: Path = Path("out", "report.html")
    """File that the page is written to (REPORT). An existing file is replaced."""


def report_options(arguments: Sequence[str]) -> ReportOptions:
    """Read the command line of `report`. An invalid one ends the process with a message and status 2.

    Raises:
        SettingError: no cache is given.
    """
    options = tyro.cli(ReportOptions, prog="python -m trainer report", args=list(arguments))
    if not options.cache:
        raise SettingError("CACHE", [Problem(place="--cache", found="is not given", fix="make … CACHE=…")])
    return options
