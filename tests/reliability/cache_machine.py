"""A program of test_model's: it does to tiny caches what users and their machines do, in any order, beside a model.

    python cache_machine.py FOLDER SEQUENCES STEPS SEED

It prints, as JSON, how often each thing came about. It is a program of its own so that it has no thread of anyone's
when it forks what it kills, and does not check the types of every call as tests do: there are thousands of runs.
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
from looks import check_gc, check_inspect, check_row, check_verify, check_with_zarr, verified
from mending import mend_as_told, mend_from_a_copy
from reading import places
from references import References, hashes
from refusals import REFUSALS
from tiny_caches import MADE, TEACHERS, History, TinyCache, may_grow, write_images

EXTENDED = (*MADE, "images")
STARTS: tuple[tuple[History, dict[str, History], dict[str, tuple[History, ...]]], ...] = (
    ((), {}, {}),
    (MADE, {}, {}),
    (MADE, {"direct": MADE}, {"direct": (MADE,)}),
    (MADE, dict.fromkeys(TEACHERS, MADE), dict.fromkeys(TEACHERS, (MADE,))),
    (EXTENDED, {"direct": MADE, "fixed": MADE, "canvas": EXTENDED}, {"direct": (MADE, EXTENDED)}),
)
"""How the views came, what PHI-S of each teacher was fitted on, and what it was measured of."""
MOST_DAMAGED = 2
"""Objects that are damaged at once."""
commands, teachers = st.sampled_from(COMMANDS), st.sampled_from(sorted(TEACHERS))
numbers, moments = st.integers(0, 2**16), st.integers(1, 60)


class CacheMachine(RuleBasedStateMachine):
    """A cache, and a model of it."""

    root: ClassVar[Path]
    references: ClassVar[References]
    counts: ClassVar[Counter[str]] = Counter()
    """How often each thing came about."""

    @initialize(start=st.sampled_from(STARTS), roster=st.sets(teachers))
    def begin(self, start: tuple, roster: set[str]) -> None:
        """Begin with a cache as undisturbed runs leave it."""
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
        """Cut the views, or take that up again."""
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
        """Run a teacher, or take that up again; views that it needs are cut before."""
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

    # looks

    def is_there(self) -> bool:
        """Say whether anything is there to look at."""
        return ROOT in self.model.held

    @precondition(lambda machine: machine.model.held)
    @rule()
    def verify(self) -> None:
        """Everything that is damaged is named, and nothing else; what is unfinished is."""
        check_verify(self.tiny, self.model)
        self.counts["verify of damage" if self.model.damage else "verify"] += 1

    @precondition(is_there)
    @rule(name=teachers)
    def look(self, name: str) -> None:
        """`inspect` counts what is there, and plain zarr-python reads all of a complete teacher."""
        check_inspect(self.tiny, self.model)
        self.counts["inspect"] += 1
        self.counts[check_with_zarr(self.tiny, self.model, name)] += 1

    @precondition(is_there)
    @rule(deletes=st.booleans(), details=st.booleans())
    def collect(self, deletes: bool, details: bool) -> None:
        """Leftovers go, and what is committed does not."""
        self.counts[check_gc(self.tiny, self.model, details=details, deletes=deletes)] += 1

    def has_views(self) -> bool:
        """Say whether there are views."""
        return bool(self.model.history)

    @precondition(has_views)
    @rule(rows=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
    def read_rows(self, rows: list[tuple[int, int]]) -> None:
        """Rows are what they must be, or an error says why they cannot be read."""
        every = places(self.model)
        for which, row in rows:
            self.counts[check_row(self.tiny, self.model, every[which % len(every)].at(row))] += 1

    def is_sound(self) -> bool:
        """Say whether nothing is damaged."""
        return not self.model.damage and self.is_there()

    @precondition(is_sound)
    @rule(kind=st.sampled_from(sorted(REFUSALS)))
    def refuse(self, kind: str) -> None:
        """What would mix is refused, and changes nothing."""
        self.counts["refusals"] += REFUSALS[kind](self.tiny, self.model)

    # damage

    def may_be_damaged(self) -> bool:
        """Say whether there is something to damage."""
        return len(self.model.damage) < MOST_DAMAGED and bool(self.model.claimed())

    @precondition(may_be_damaged)
    @rule(kind=st.sampled_from(KINDS), which=numbers, where=numbers)
    def corrupt(self, kind: str, which: int, where: int) -> None:
        """Objects are flipped, cut, emptied, lost or swapped."""
        self.counts[f"damaged: {kind}"] += damaged(self.model, self.tiny, kind, which, where)

    def is_damaged(self) -> bool:
        """Say whether something is damaged."""
        return bool(self.model.damage)

    @precondition(is_damaged)
    @rule(as_told=st.booleans())
    def mend(self, as_told: bool) -> None:
        """What is damaged is put back; or of one object what the messages say is done, and that mends it."""
        self.counts["mended as told" if as_told else "mended from a copy"] += 1
        mend_from_a_copy(self.tiny, self.model, sorted(self.model.damage)[as_told:])
        if as_told:
            mend_as_told(self.tiny, self.model)
        assert not self.model.damage
        assert not verified(self.tiny).problems

    # always

    @invariant()
    def everything_is_as_the_model_has_it(self) -> None:
        """Every object has the bytes of the model, there is no other, and every commit record names what is there."""
        if hasattr(self, "model"):
            self.counts["steps"] += 1
            assert hashes(self.tiny.where) == self.model.held
            torn = {name for name, sha in self.model.committed.items() if self.model.sound.get(name) != sha}
            assert not torn, torn

    def teardown(self) -> None:
        """All that was begun can be finished, whatever happened."""
        if not hasattr(self, "model") or sys.exc_info()[0] is not None:
            return
        mend_from_a_copy(self.tiny, self.model, list(self.model.damage))
        for wanted in ("cut", *(f"extract {name}" for name in sorted(self.model.fitted))):
            run(self.tiny, self.model, wanted)
        assert not verified(self.tiny).problems


def main(folder: Path, sequences: int, steps: int, number: int) -> dict[str, Any]:
    """Run the machine, and return how often each thing came about."""
    tqdm.tqdm.monitor_interval = 0  # no thread of its own
    os.fsync = FLUSHES.flush  # nothing here outlives the machine, and a disk can be made to fail
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
