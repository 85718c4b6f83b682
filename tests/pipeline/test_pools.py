"""Pools: tasks in, results out, and back in order."""

from typing import final

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import RunConfig
from pipeline.pools import in_order, open_pool


@final
class Doubler:
    """A worker."""

    def double(self, task: int) -> int:
        """Twice the task."""
        return 2 * task


def test_the_local_executor_runs_every_task_in_turn() -> None:
    with open_pool(Doubler, RunConfig(executor="local"), tasks=3) as pool:
        assert list(pool.run("double", [5, 7, 9])) == [(0, 10), (1, 14), (2, 18)]
        assert list(pool.run("double", [])) == []


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
