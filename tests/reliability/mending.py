"""Mending a tiny cache: by a copy, or as the messages of `verify` say."""

import re
from collections.abc import Iterable
from pathlib import Path

from cache_model import CacheModel
from commands import run
from looks import verified
from references import hashes
from tiny_caches import TEACHERS, TinyCache

COMMAND = re.compile(r"`make (\w+) ([^`]*)`")
OBJECT = re.compile(r"(?:features\.zarr|tables)/[^\s,;]+")
STAGES = {"views": "cut", "extract": "extract", "stats": "measure"}


def mend_from_a_copy(tiny: TinyCache, model: CacheModel, names: Iterable[str]) -> None:
    """Put damaged objects back as they were."""
    back = {name: model.damage.pop(name) for name in names}
    model.references.lay(tiny.where, back)
    model.held |= back


def mend_as_told(tiny: TinyCache, model: CacheModel) -> None:
    """Do what the messages say: delete what they name and run their commands; put back what has no other mend."""
    fixes = dict.fromkeys(problem.fix for problem in verified(tiny).problems)
    deletions = [fix for fix in fixes if "delete " in fix]
    if not deletions:
        mend_from_a_copy(tiny, model, list(model.damage))
    for fix in deletions:
        for place in OBJECT.findall(COMMAND.sub("", fix[fix.index("delete ") :])):
            _delete(tiny.where, place)
            model.remove([name for name in model.sound if f"{name}/".startswith(f"{place}/")])
    assert hashes(tiny.where) == model.held
    for fix in deletions:
        for stage, options in COMMAND.findall(fix):
            named = [name for name in TEACHERS if re.search(rf"TEACHER=(<module:Class of )?{name}\b", options)]
            run(tiny, model, " ".join([STAGES[stage], *named]))


def _delete(where: Path, place: str) -> None:
    path = where / place
    for one in [path, *path.rglob("*")]:
        if one.is_file():
            one.unlink()
