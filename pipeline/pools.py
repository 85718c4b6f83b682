"""Carrying tasks to workers. A worker is a plain object; its methods are the steps, its results are small."""

import abc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, final

from pipeline.config import RunConfig

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


@final
class LocalPool(AbstractPool):
    """One worker in this process: for debugging, for machines without ray, and as the baseline of benchmarks."""

    def __init__(self, factory: WorkerFactory) -> None:
        self._worker = factory()

    def run(self, step: str, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        method, finishing = getattr(self._worker, step), deque[tuple[int, Future[Any]]]()
        with ThreadPoolExecutor(1) as thread:  # whoever asks for no more results waits for what is being finished
            for index, task in enumerate(tasks):
                result = method(task)
                if not isinstance(result, Unfinished):
                    yield index, result
                    continue
                finishing.append((index, thread.submit(result.finish)))
                if len(finishing) > 1:
                    yield _finished(*finishing.popleft())
            while finishing:
                yield _finished(*finishing.popleft())


def _finished(index: int, finishing: Future[Any]) -> tuple[int, Any]:
    return index, finishing.result()


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
