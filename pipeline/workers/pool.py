"""The interface between a stage and its workers: a pool runs one step, a method of the workers' class, over many tasks.

A worker is a plain object and knows nothing of Ray. Its results are small, because they travel between processes.
"""

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final, overload

Worker = TypeVar("Worker")
Task = TypeVar("Task")
Result = TypeVar("Result")

WorkerFactory = Callable[[], Worker]
"""Makes a worker, in the process where it will work. It must be picklable: a class, or a `functools.partial` of one."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Unfinished(Generic[Result]):
    """What a step returns when the rest of its task can be done in another thread.

    The worker then starts its next task at once, so the processor is busy while the first task waits for the disk.
    """

    finish: Callable[[], Result]
    """Does the rest and returns the task's result. It is called exactly once."""


class AbstractPool(abc.ABC, Generic[Worker]):
    """Workers of one class, ready for tasks."""

    @overload
    def run(
        self, step: Callable[[Worker, Task], Unfinished[Result]], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]: ...

    @overload
    def run(self, step: Callable[[Worker, Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]: ...

    @abc.abstractmethod
    def run(self, step: Callable[[Worker, Task], Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Run one step over all tasks.

        Args:
            step: a method of the workers' class, such as `ViewCutter.cut`. It takes a worker and a task, and returns
                the result, or an `Unfinished` from which the result comes later.
            tasks: one call of the step each.

        Yields:
            (index of the task, its result), each as soon as it is there, in any order.
        """
