"""A program that test_model runs: it does to tiny caches what users and machines do, in random order, beside a model.

    python cache_machine.py FOLDER SEQUENCES STEPS SEED

It prints, as JSON, how often each thing happened. It is a program of its own for two reasons: a process that forks
must have no other threads, and thousands of runs are too slow where the types of every call are checked, as in tests.
"""

import json
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import tqdm
from array_rows import places
from cache_model import ROOT, CacheModel
from commands import COMMANDS, run, run_on_a_failing_disk, run_until_killed
from damage import KINDS, damaged
from disturbances import FLUSHES
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from reading_commands import check_gc, check_inspect, check_row, check_verify, check_with_zarr, verified
from references import References, hashes
from refusals import REFUSALS
from repairs import repair_as_told, repair_from_a_copy
from tiny_caches import MADE, TEACHERS, History, TinyCache, may_grow, write_images

EXTENDED = (*MADE, "images")
STARTS: tuple[tuple[History, dict[str, History], dict[str, tuple[History, ...]]], ...] = (
    ((), {}, {}),
    (MADE, {}, {}),
    (MADE, {"direct": MADE}, {"direct": (MADE,)}),
    (MADE, dict.fromkeys(TEACHERS, MADE), dict.fromkeys(TEACHERS, (MADE,))),
    (EXTENDED, {"direct": MADE, "fixed": MADE, "canvas": EXTENDED}, {"direct": (MADE, EXTENDED)}),
)
"""The history of the views, that on which each teacher's PHI-S was fitted, and those at which it was measured."""
MOST_DAMAGED = 2
"""Objects that are damaged at the same time."""
commands, teachers = st.sampled_from(COMMANDS), st.sampled_from(sorted(TEACHERS))
numbers, moments = st.integers(0, 2**16), st.integers(1, 60)


class CacheMachine(RuleBasedStateMachine):
    """A cache, and a model of it."""

    root: ClassVar[Path]
    references: ClassVar[References]
    counts: ClassVar[Counter[str]] = Counter()
    """How often each thing happened."""

    @initialize(start=st.sampled_from(STARTS), roster=st.sets(teachers))
    def begin(self, start: tuple, roster: set[str]) -> None:
        """Start from a cache that undisturbed runs made."""
        self.counts["sequences"] += 1
        history, fitted, measured = start
        self.tiny = TinyCache(where=self.root / "cache", images=self.root / "images")
        shutil.rmtree(self.tiny.where, ignore_errors=True)
        self.model = CacheModel(
            references=self.references,
            history=history,
            roster=roster | fitted.keys(),
            fitted=dict(fitted),
            measured=dict(measured),
        )
        self.references.lay(self.tiny.where, self.model.at_rest())
        self.model.held = hashes(self.tiny.where)

    # commands

    def lacks_views(self) -> bool:
        """Say whether there are views to be cut."""
        return not self.model.history or any(lacking for _, lacking, _ in self.model.view_units())

    @precondition(lacks_views)
    @rule()
    def cut(self) -> None:
        """Cut the views, or finish cutting them."""
        self.counts[run(self.tiny, self.model, "cut")] += 1

    def may_be_extended(self) -> bool:
        """Say whether anything can be added to the views."""
        return bool(self.model.history and may_grow(self.model.history))

    @precondition(may_be_extended)
    @rule(by=st.sampled_from(["images", "views"]))
    def extend(self, by: str) -> None:
        """Add images, or draws and a resolution."""
        self.counts[run(self.tiny, self.model, by)] += 1

    @rule(name=teachers)
    def extract(self, name: str) -> None:
        """Run a teacher, or finish that; the views that it needs are cut before."""
        self.counts[run(self.tiny, self.model, f"extract {name}")] += 1

    @rule(name=teachers)
    def measure(self, name: str) -> None:
        """Measure a teacher's features; extract them where they are not complete."""
        self.counts[run(self.tiny, self.model, f"measure {name}")] += 1

    @rule(wanted=commands, moment=moments)
    def kill(self, wanted: str, moment: int) -> None:
        """Run a command, and kill it."""
        self.counts[run_until_killed(self.tiny, self.model, wanted, moment)] += 1

    @rule(wanted=commands, moment=moments)
    def fail(self, wanted: str, moment: int) -> None:
        """Run a command on a disk that fails."""
        self.counts[run_on_a_failing_disk(self.tiny, self.model, wanted, moment)] += 1

    # commands that read

    def is_there(self) -> bool:
        """Say whether there is a cache."""
        return ROOT in self.model.held

    @precondition(lambda machine: machine.model.held)
    @rule()
    def verify(self) -> None:
        """`verify` names everything damaged and nothing else, and lists what is unfinished."""
        check_verify(self.tiny, self.model)
        self.counts["verify of damage" if self.model.damage else "verify"] += 1

    @precondition(is_there)
    @rule(name=teachers)
    def look(self, name: str) -> None:
        """`inspect` counts what is committed, and plain zarr-python reads all arrays of a complete teacher."""
        check_inspect(self.tiny, self.model)
        self.counts["inspect"] += 1
        self.counts[check_with_zarr(self.tiny, self.model, name)] += 1

    @precondition(is_there)
    @rule(deletes=st.booleans(), details=st.booleans())
    def collect(self, deletes: bool, details: bool) -> None:
        """`gc` deletes leftovers, and nothing that is committed."""
        self.counts[check_gc(self.tiny, self.model, details=details, deletes=deletes)] += 1

    def has_views(self) -> bool:
        """Say whether there are views."""
        return bool(self.model.history)

    @precondition(has_views)
    @rule(rows=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
    def read_rows(self, rows: list[tuple[int, int]]) -> None:
        """Each row is right, or an error says why it cannot be read."""
        every = places(self.model)
        for which, row in rows:
            self.counts[check_row(self.tiny, self.model, every[which % len(every)].at(row))] += 1

    def is_sound(self) -> bool:
        """Say whether nothing is damaged."""
        return not self.model.damage and self.is_there()

    @precondition(is_sound)
    @rule(kind=st.sampled_from(sorted(REFUSALS)))
    def refuse(self, kind: str) -> None:
        """A run that would mix different data is refused, and changes nothing."""
        self.counts["refusals"] += REFUSALS[kind](self.tiny, self.model)

    # damage

    def may_be_damaged(self) -> bool:
        """Say whether there is something to damage."""
        return len(self.model.damage) < MOST_DAMAGED and bool(self.model.claimed())

    @precondition(may_be_damaged)
    @rule(kind=st.sampled_from(KINDS), which=numbers, where=numbers)
    def corrupt(self, kind: str, which: int, where: int) -> None:
        """Flip a bit of an object, cut it short, empty it, lose it, or swap two."""
        self.counts[f"damaged: {kind}"] += damaged(self.model, self.tiny, kind, which, where)

    def is_damaged(self) -> bool:
        """Say whether something is damaged."""
        return bool(self.model.damage)

    @precondition(is_damaged)
    @rule(as_told=st.booleans())
    def repair(self, as_told: bool) -> None:
        """Restore damaged objects from a copy; or do for one of them what `verify` says."""
        self.counts["repaired as told" if as_told else "repaired from a copy"] += 1
        repair_from_a_copy(self.tiny, self.model, sorted(self.model.damage)[as_told:])
        if as_told:
            repair_as_told(self.tiny, self.model)
        assert not self.model.damage
        assert not verified(self.tiny).problems

    # always

    @invariant()
    def everything_is_as_the_model_has_it(self) -> None:
        """The cache has the objects of the model and no others, and commit records name only objects that exist."""
        if hasattr(self, "model"):
            self.counts["steps"] += 1
            assert hashes(self.tiny.where) == self.model.held
            torn = {name for name, sha in self.model.committed.items() if self.model.sound.get(name) != sha}
            assert not torn, torn

    def teardown(self) -> None:
        """Everything that was started can be finished, whatever happened."""
        if not hasattr(self, "model") or sys.exc_info()[0] is not None:
            return
        repair_from_a_copy(self.tiny, self.model, list(self.model.damage))
        for wanted in ("cut", *(f"extract {name}" for name in sorted(self.model.fitted))):
            run(self.tiny, self.model, wanted)
        assert not verified(self.tiny).problems


def main(folder: Path, sequences: int, steps: int, number: int) -> dict[str, Any]:
    """Run the machine, and return how often each thing happened."""
    tqdm.tqdm.monitor_interval = 0  # no thread of its own
    os.fsync = FLUSHES.flush  # no test needs the data after a power cut, and this can be made to fail
    CacheMachine.root = folder
    CacheMachine.references = References(folder / "references", write_images(folder / "images"))
    began = time.perf_counter()
    repeatable = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    run_state_machine_as_test(seed(number)(CacheMachine), settings=repeatable)
    return dict(sorted(CacheMachine.counts.items())) | {"seconds": round(time.perf_counter() - began)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
