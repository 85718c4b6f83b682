"""Merging the results of numbered tasks in one fixed binary tree, whatever order they come in."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar, final

from pipeline.workers.pool import Result
from storage_schemas.format.errors import ContractError, Problem

Part = TypeVar("Part")


@final
class TreeReduction(Generic[Part]):
    """Merges leaves 0 … n − 1 pairwise, level by level: 0 with 1, 2 with 3, then those pairs; an odd last one moves up.

    Floating-point sums depend on their order. Here it is that of the leaves' numbers, so the result is the same to the
    last bit however many workers there are and whoever is first. Two neighbours merge as soon as both are there: while
    w leaves are being worked on, at most about (w + 1) log₂ n parts wait, however long one of them takes.
    """

    def __init__(self, *, leaves: int, merge: Callable[[Part, Part], Part]) -> None:
        self._leaves = leaves
        self._merge = merge
        self._waiting: dict[tuple[int, int], Part] = {}
        """Parts whose neighbour is not there yet, by level and number."""
        self._root: list[Part] = []

    @property
    def waiting(self) -> int:
        """How many parts are held."""
        return len(self._waiting) + len(self._root)

    def add(self, leaf: int, part: Part) -> None:
        """Add the result of a task, and merge what can be.

        Args:
            leaf: the task's number; each is added once.
            part: its result.
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
        """Return all leaves, merged.

        Raises:
            ContractError: not every leaf was added once, or there is none.
        """
        if len(self._root) != 1 or self._waiting:
            found = f"{self.waiting} parts are left of {self._leaves} leaves, expected one"
            raise ContractError("tree reduction", [Problem(place="leaves", found=found)])
        return self._root[0]


def in_order(results: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """Yield what `run` yields in the order of its tasks, holding no more than what came early.

    Sums of floating-point numbers depend on their order: this one is the same however many workers there are.
    """
    early: dict[int, Result] = {}
    following = 0
    for index, result in results:
        early[index] = result
        while following in early:
            yield early.pop(following)
            following += 1
