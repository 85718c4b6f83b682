"""Results that arrive in any order: merged in one fixed order, or yielded in the order of their tasks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar, final

from pipeline.workers.pool import Result
from storage_schemas.format.errors import ContractError, Problem

Part = TypeVar("Part")


@final
class TreeReduction(Generic[Part]):
    """Merges leaves 0 … n − 1 pairwise, level by level: 0 with 1, 2 with 3, then those pairs; an odd last one moves up.

    A floating-point sum depends on its order. Here the order follows the leaves' numbers, so the result is equal to
    the last bit for any number of workers and any order of arrival. Two neighbours merge as soon as both are there:
    while w leaves are being computed, at most about (w + 1) log₂ n parts wait, however slow one leaf is.
    """

    def __init__(self, *, leaves: int, merge: Callable[[Part, Part], Part]) -> None:
        self._leaves = leaves
        self._merge = merge
        self._waiting: dict[tuple[int, int], Part] = {}
        """Parts whose neighbour has not arrived, by level and number."""
        self._root: list[Part] = []

    @property
    def waiting(self) -> int:
        """How many parts are in memory."""
        return len(self._waiting) + len(self._root)

    def add(self, leaf: int, part: Part) -> None:
        """Add the result of a task, and merge whatever can be merged now.

        Args:
            leaf: the task's number; each number is added once.
            part: the task's result.
        """
        level, number, nodes = 0, leaf, self._leaves
        while nodes > 1:
            neighbour = number ^ 1
            if neighbour < nodes:
                if (level, neighbour) not in self._waiting:
                    self._waiting[level, number] = part
                    return
                other = self._waiting.pop((level, neighbour))
                part = self._merge(other, part) if neighbour < number else self._merge(part, other)
            level, number, nodes = level + 1, number // 2, (nodes + 1) // 2
        self._root.append(part)

    def result(self) -> Part:
        """Return the merged leaves.

        Raises:
            ContractError: a leaf is missing or was added twice, or there are no leaves.
        """
        if len(self._root) != 1 or self._waiting:
            found = f"{self.waiting} parts remain after merging {self._leaves} leaves, expected 1"
            raise ContractError("tree reduction", [Problem(place="leaves", found=found)])
        return self._root[0]


def in_order(results: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """Yield the results of `AbstractPool.run` in the order of their tasks. Only results that came early are held.

    A floating-point sum over these results is then the same for any number of workers.
    """
    early: dict[int, Result] = {}
    next_index = 0
    for index, result in results:
        early[index] = result
        while next_index in early:
            yield early.pop(next_index)
            next_index += 1
