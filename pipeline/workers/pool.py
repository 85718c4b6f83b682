"""Carrying tasks to workers. A worker is a plain object; its methods are the steps, its results are small."""

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, final

WorkerFactory = Callable[[], Any]
"""Makes a worker, in the process where it will work. It must be picklable: `functools.partial` of a class."""

Result = TypeVar("Result")


@final
@dataclass(frozen=True, slots=True, eq=False)
class Unfinished:
    """What a step returns whose worker may begin the next task before this one has its result: while the disk is
    waited for, the processor is free."""

    finish: Callable[[], Any]
    """Does what is left, in another thread, and returns the result. It is called once, and nothing else is done to the
    task after it."""


class AbstractPool(abc.ABC):
    """Workers, ready for tasks."""

    @abc.abstractmethod
    def run(self, step: str, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Run a worker's method over tasks.

        Args:
            step: the method's name. It returns the result, or an `Unfinished`.
            tasks: its argument, each.

        Yields:
            (index of the task, result), as they are done, in any order.
        """
