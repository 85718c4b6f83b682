"""The command line of `normalise`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import tyro

from storage_schemas.format.errors import Problem, SettingError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NormaliseOptions:
    """Fit the normaliser of a finished student's blocks on its held-out views, and write it beside the student."""

    student: Path = Path()
    """Folder of a finished run."""
    cache: str = ""
    """The cache that the student was trained on: a folder, or a URI such as s3://bucket/prefix (CACHE)."""
    batch: int = 8
    """Views per step."""
    device: str = "cpu"
    """Where the student runs: cpu, or cuda."""


def normalise_options(arguments: Sequence[str]) -> NormaliseOptions:
    """Read the command line of `normalise`. An invalid one ends the process with a message and status 2.

    Raises:
        SettingError: no student or no cache is given, or a batch has no view.
    """
    options = tyro.cli(NormaliseOptions, prog="python -m trainer normalise", args=list(arguments))
    problems = []
    if options.student == Path():
        fix = "--student runs/…, the folder of a finished run"
        problems.append(Problem(place="--student", found="is not given", fix=fix))
    if not options.cache:
        problems.append(
            Problem(place="--cache", found="is not given", fix="--cache …, that the student was trained on")
        )
    if options.batch < 1:
        problems.append(Problem(place="--batch", found=f"{options.batch} is less than 1"))
    if problems:
        raise SettingError("normalise", problems)
    return options
