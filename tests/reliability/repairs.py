"""Repairing a tiny cache: from a copy, or by the fixes that `verify` names."""

import re
from collections.abc import Iterable
from pathlib import Path

from cache_model import CacheModel
from commands import run
from reading_commands import verified
from references import hashes
from tiny_caches import TEACHERS, TinyCache

from storage_schemas.format.errors import Problem

COMMAND = re.compile(r"`make (\w+) ([^`]*)`")
OBJECT = re.compile(r"(?:features\.zarr|tables)/[^\s,;]+")
STAGES = {"views": "cut", "extract": "extract", "stats": "measure"}


def repair_from_a_copy(tiny: TinyCache, model: CacheModel, names: Iterable[str]) -> None:
    """Restore damaged objects from a copy."""
    back = {name: model.damage.pop(name) for name in names}
    model.references.lay(tiny.where, back)
    model.held |= back


def repair_as_told(tiny: TinyCache, model: CacheModel) -> None:
    """Do what the messages say: delete objects and run commands; restore from a copy where they say nothing else."""
    problems = verified(tiny).problems
    deletions = [problem for problem in problems if "delete " in problem.fix]
    if not deletions:
        repair_from_a_copy(tiny, model, list(model.damage))
    for place in dict.fromkeys(place for problem in deletions for place in _deleted(problem)):
        _delete(tiny.where, place)
        model.remove([name for name in model.sound if f"{name}/".startswith(f"{place}/")])
    assert hashes(tiny.where) == model.held
    for stage, options in dict.fromkeys(told for problem in deletions for told in COMMAND.findall(problem.fix)):
        named = [name for name in TEACHERS if re.search(rf"TEACHER=(<module:Class of )?{name}\b", options)]
        run(tiny, model, " ".join([STAGES[stage], *named]))


def _deleted(problem: Problem) -> list[str]:
    """Return the objects and folders that a problem says to delete."""
    told = COMMAND.sub("", problem.fix[problem.fix.index("delete ") :])
    return [*([problem.place] if "delete it" in told else []), *OBJECT.findall(told)]


def _delete(where: Path, place: str) -> None:
    path = where / place
    for path_below in [path, *path.rglob("*")]:
        if path_below.is_file():
            path_below.unlink()
