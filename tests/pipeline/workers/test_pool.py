"""Pools: tasks in, results out, and back in order."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import RunConfig
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import in_order
from pipeline.workers.pool import Unfinished


@final
class Doubler:
    """A worker."""

    def double(self, task: int) -> int:
        """Twice the task."""
        return 2 * task


def test_the_local_executor_runs_every_task_in_turn() -> None:
    with open_pool(Doubler, RunConfig(executor="local"), tasks=3) as pool:
        assert list(pool.run(Doubler.double, [5, 7, 9])) == [(0, 10), (1, 14), (2, 18)]
        assert list(pool.run(Doubler.double, [])) == []


@final
@dataclass(frozen=True, slots=True, eq=False)
class Writer:
    """A worker that leaves its tasks unfinished, and notes what happens."""

    events: list[str]
    finish: Callable[[int], int]

    def write(self, task: int) -> Unfinished[int]:
        """Begin the task."""
        self.events.append(f"begin {task}")
        return Unfinished(partial(self._finish, task))

    def _finish(self, task: int) -> int:
        result = self.finish(task)
        self.events.append(f"finish {task}")
        return result


def test_a_task_begins_while_the_one_before_is_finished_but_not_while_two_are() -> None:
    events: list[str] = []
    begun = [threading.Event() for _ in range(4)]

    def finish(task: int) -> int:
        assert begun[task + 1].wait(timeout=10), "the next task waits for this one"
        return 2 * task

    @final
    class Announcing:
        def write(self, task: int) -> Unfinished[int]:
            begun[task].set()
            return writer.write(task)

    writer, results = Writer(events, finish), []
    with open_pool(Announcing, RunConfig(executor="local"), tasks=3) as pool:
        for index, result in pool.run(Announcing.write, [0, 1, 2]):
            results.append((index, result))
            assert f"finish {index}" in events, "a result is known when its task is finished, not before"
            assert events.count("begin 2") == (index > 0), "the third task begins only after the first is finished"
            if index == 1:
                begun[3].set()
    assert results == [(0, 0), (1, 2), (2, 4)]


def test_what_finishing_raises_is_raised_and_what_was_begun_is_finished() -> None:
    def finish(task: int) -> int:
        if task == 1:
            raise OSError("disk")
        return task

    writer, before = Writer([], finish), threading.active_count()
    with open_pool(lambda: writer, RunConfig(executor="local"), tasks=4) as pool:
        results = pool.run(Writer.write, [0, 1, 2, 3])
        assert next(results) == (0, 0)
        with pytest.raises(OSError, match="disk"):
            next(results)
    assert writer.events[-1] == "finish 2"
    assert "begin 3" not in writer.events
    assert threading.active_count() == before


def test_a_caller_who_stops_waits_for_what_is_being_finished() -> None:
    may_go = threading.Event()

    def finish(task: int) -> int:
        assert task == 0 or may_go.wait(timeout=10)
        return task

    writer, before = Writer([], finish), threading.active_count()
    with open_pool(lambda: writer, RunConfig(executor="local"), tasks=9) as pool:
        results = pool.run(Writer.write, range(9))
        assert next(results) == (0, 0)
        threading.Timer(0.05, may_go.set).start()
        results.close()
    assert sorted(writer.events) == ["begin 0", "begin 1", "finish 0", "finish 1"]
    assert threading.active_count() == before


@given(st.permutations(range(8)))
def test_results_come_back_in_the_order_of_their_tasks(arrivals: list[int]) -> None:
    assert list(in_order((index, f"result {index}") for index in arrivals)) == [f"result {n}" for n in range(8)]


def test_a_result_goes_on_as_soon_as_those_before_it_are_there() -> None:
    taken = []

    def arriving():
        for index in (1, 0, 2):
            taken.append(index)
            yield index, index

    results = in_order(arriving())
    assert (next(results), taken) == (0, [1, 0]), "nothing is asked for before it is needed"
    assert (next(results), taken) == (1, [1, 0])
