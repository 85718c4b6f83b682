"""Commands on a tiny cache: run to their end, killed, or run on a disk that fails; the model records each result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from cache_model import LOG, CacheModel, Step
from damage import names
from disturbances import FLUSHES, killed_at
from references import files, hashes
from tiny_caches import MADE, TEACHERS, TinyCache, may_grow

from storage_schemas.format.errors import AbstractStillhouseError, StorageError

COMMANDS = ("cut", "images", "views", *(f"{do} {name}" for do in ("extract", "measure") for name in TEACHERS))
"""Cutting views, extending them by images or by views, running a teacher, measuring it."""


@final
@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, and the step that it carries out."""

    name: str
    step: Step
    act: Callable[[], None]
    """Runs it."""


def command(tiny: TinyCache, model: CacheModel, wanted: str) -> Command:
    """Return the command that is wanted, or the one that must come before it."""
    do, _, name = wanted.partition(" ")
    roster, history = set(model.roster), model.history or MADE
    if do in ("images", "views") and model.history and do in may_grow(model.history):
        grown = (*model.history, do)
        return Command(name=do, step=model.cutting(grown), act=lambda: tiny.cut(grown, roster, extend=True))
    if do == "measure" and model.is_complete(name):
        return Command(name=wanted, step=model.measuring(name), act=lambda: tiny.measure(name))
    if do in ("extract", "measure"):
        model.roster.add(name)
        step = model.extracting(name)
        return Command(name=f"extract {name}", step=step, act=lambda: tiny.extract(history, roster, name))
    return Command(name="cut", step=model.cutting(history), act=lambda: tiny.cut(history, roster))


def run(tiny: TinyCache, model: CacheModel, wanted: str) -> str:
    """Run a command to its end; it may refuse only where something is damaged. Return its outcome."""
    given, before, refusal = command(tiny, model, wanted), inodes(tiny, model), None
    try:
        given.act()
    except AbstractStillhouseError as error:
        refusal = error
    _take(tiny, model, given, before, whole=refusal is None)
    if refusal is None:
        return given.name
    require_about_damage(tiny, model, str(refusal))
    return "refused for damage"


def run_until_killed(tiny: TinyCache, model: CacheModel, wanted: str, moment: int) -> str:
    """Run a command that SIGKILL ends as it touches its n-th file, if it touches so many. Return its outcome."""
    given, before = command(tiny, model, wanted), inodes(tiny, model)
    ended = killed_at(moment, given.act)
    about = set(model.damage)
    _take(tiny, model, given, before, whole=ended.whole, killed=ended.killed)
    if ended.refused:
        assert any(names(ended.said, name, tiny) for name in about), ended.said
    return "kills" if ended.killed else "ended before the kill"


def run_on_a_failing_disk(tiny: TinyCache, model: CacheModel, wanted: str, moment: int) -> str:
    """Run a command whose n-th flush to the disk fails, if it makes so many. Return its outcome."""
    given, before, refusal = command(tiny, model, wanted), inodes(tiny, model), None
    try:
        with FLUSHES.failing_at(moment):
            given.act()
    except AbstractStillhouseError as error:
        refusal = error
    _take(tiny, model, given, before, whole=refusal is None)
    if isinstance(refusal, StorageError):
        assert "Input/output error" in str(refusal)
        return "disk failures"
    if refusal is not None:
        require_about_damage(tiny, model, str(refusal))
    return "ended before the disk failed"


def require_about_damage(tiny: TinyCache, model: CacheModel, text: str) -> None:
    """Check that a refusal names a damaged object."""
    assert any(names(text, name, tiny) for name in model.damage), text


def inodes(tiny: TinyCache, model: CacheModel) -> dict[str, int]:
    """Return the file of each committed object, and of each commit record."""
    if not tiny.where.exists():
        return {}
    start, committed = len(f"{tiny.where}/"), model.committed
    found = {path[start:]: told.st_ino for path, told in files(str(tiny.where))}
    return {name: inode for name, inode in found.items() if name in committed or name.startswith(LOG)}


def _take(
    tiny: TinyCache, model: CacheModel, given: Command, before: dict[str, int], *, whole: bool, killed: bool = False
) -> None:
    """Record what a command left; objects committed before must still be in the same files."""
    model.took(hashes(tiny.where), given.step, whole=whole, killed=killed)
    now = inodes(tiny, model)
    moved = {name for name, inode in before.items() if name in now and now[name] != inode}
    assert not moved, f"written again: {moved}"
