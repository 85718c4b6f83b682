"""Carrying tasks to workers. A worker is a plain object; its methods are the steps, its results are small."""

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

Worker = TypeVar("Worker")
Task = TypeVar("Task")
Result = TypeVar("Result")

WorkerFactory = Callable[[], Worker]
"""Makes a worker, in the process where it will work. It must be picklable: `functools.partial` of a class."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Unfinished(Generic[Result]):
    """What a step returns whose worker may begin the next task before this one has its result: while the disk is
    waited for, the processor is free."""

    finish: Callable[[], Result]
    """Does what is left, in another thread, and returns the result. It is called once, and nothing else is done to the
    task after it."""


class AbstractPool(abc.ABC, Generic[Worker]):
    """Workers of one class, ready for tasks."""

    @abc.abstractmethod
    def run(self, step: Callable[[Worker, Task], Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Run one step of the workers over tasks.

        Args:
            step: a method of the worker's class, such as `ViewCutter.cut`: it takes a worker and a task, and returns
                the result, or an `Unfinished`.
            tasks: what it is called with.

        Yields:
            (index of the task, result), as they are done, in any order.
        """
