"""Carrying tasks to workers. A worker is a plain object; its methods are the steps, its results are small."""

import abc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, final

from pipeline.config import RunConfig

WorkerFactory = Callable[[], Any]
"""Makes a worker, in the process where it will work. It must be picklable: `functools.partial` of a class."""

Result = TypeVar("Result")


class AbstractPool(abc.ABC):
    """Workers, ready for tasks."""

    @abc.abstractmethod
    def run(self, step: str, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Run a worker's method over tasks.

        Args:
            step: the method's name.
            tasks: its argument, each.

        Yields:
            (index of the task, result), as they are done, in any order.
        """


@final
class LocalPool(AbstractPool):
    """One worker in this process: for debugging, for machines without ray, and as the baseline of benchmarks."""

    def __init__(self, factory: WorkerFactory) -> None:
        self._worker = factory()

    def run(self, step: str, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        method = getattr(self._worker, step)
        for index, task in enumerate(tasks):
            yield index, method(task)


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


def open_pool(factory: WorkerFactory, config: RunConfig, *, tasks: int) -> AbstractContextManager[AbstractPool]:
    """Open a pool of the kind that `config` names.

    Args:
        factory: makes a worker.
        config: executor, workers, GPUs.
        tasks: how many tasks are coming.
    """
    if config.executor == "local":
        return _local(factory)
    from pipeline.jobs import ray_pool  # imported here so that EXECUTOR=local works where ray is not installed

    return ray_pool(factory, config, tasks=tasks)


@contextmanager
def _local(factory: WorkerFactory) -> Iterator[AbstractPool]:
    yield LocalPool(factory)
