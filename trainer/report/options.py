"""The command line of a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import tyro

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.results import RESULTS

EVALUATIONS = Path("out", "evaluation")
"""Where `evaluate` keeps the scores of teachers."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Report on a cache and on the students trained from it: a table, and one HTML page."""

    cache: str = ""
    """The cache: a folder, or a URI such as s3://bucket/prefix (CACHE)."""
    runs: Path = Path("runs")
    """Folder of runs (RUNS), each in a subfolder of its name. If there is no run, the report is about the cache
    only."""
    page: Path = Path("out", "report.html")
    """File that the page is written to (REPORT). An existing file is replaced."""
    evaluations: Path | None = None
    """Folder of evaluated teachers and models, each with its `evaluation.json` in a subfolder. By default
    `out/evaluation`, where it exists: `make evaluate TEACHER=…` keeps scores there."""


def report_options(arguments: Sequence[str]) -> ReportOptions:
    """Read the command line of `report`. An invalid one ends the process with a message and status 2.

    Raises:
        SettingError: no cache is given.
    """
    options = tyro.cli(ReportOptions, prog="python -m trainer report", args=list(arguments))
    if not options.cache:
        raise SettingError("CACHE", [Problem(place="--cache", found="is not given", fix="make … CACHE=…")])
    if options.evaluations is None and any(EVALUATIONS.glob(f"*/{RESULTS}")):
        return replace(options, evaluations=EVALUATIONS)
    return options


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunsOptions:
    """List the runs of a folder: student, settings that differ from the recipe's, steps, state, fidelity, size."""

    runs: Path = Path("runs")
    """Folder of runs (RUNS)."""
    json: bool = False
    """Print the list as JSON."""


def runs_options(arguments: Sequence[str]) -> RunsOptions:
    """Read the command line of `runs`. An invalid one ends the process with a message and status 2."""
    return tyro.cli(
        RunsOptions, prog="python -m trainer runs", args=list(arguments), config=(tyro.conf.FlagCreatePairsOff,)
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FamiliesOptions:
    """Try a model of each family of timm as a student, at 128 px, 256 px and its own size, and print a table."""

    families: tuple[str, ...] = ()
    """Families: modules of timm, such as `convnext`. None named: all."""
    page: Path | None = None
    """Markdown page whose table of families is replaced. None: the table is printed."""


def families_options(arguments: Sequence[str]) -> FamiliesOptions:
    """Read the command line of `families`. An invalid one ends the process with a message and status 2.

    Raises:
        SettingError: a page for some of the families.
    """
    options = tyro.cli(FamiliesOptions, prog="python -m trainer families", args=list(arguments))
    if options.page is not None and options.families:
        found, fix = "would lose the rows of other families", "leave --families out, or print the table"
        raise SettingError("families", [Problem(place=str(options.page), found=found, fix=fix)])
    return options
