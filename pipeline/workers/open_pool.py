"""Opening workers of the kind that a run asks for."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, final

from pipeline.config import RunConfig
from pipeline.workers.pool import AbstractPool, Task, Unfinished, Worker, WorkerFactory


@final
class LocalPool(AbstractPool[Worker]):
    """One worker in this process: for debugging, for machines without ray, and as the baseline of benchmarks."""

    def __init__(self, factory: WorkerFactory[Worker]) -> None:
        self._worker = factory()

    def run(self, step: Callable[[Worker, Task], Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        finishing = deque[tuple[int, Future[Any]]]()
        with ThreadPoolExecutor(1) as thread:  # whoever asks for no more results waits for what is being finished
            for index, task in enumerate(tasks):
                result = step(self._worker, task)
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


def open_pool(
    factory: WorkerFactory[Worker], config: RunConfig, *, tasks: int
) -> AbstractContextManager[AbstractPool[Worker]]:
    """Open a pool of the kind that `config` names.

    Args:
        factory: makes a worker.
        config: executor, workers, GPUs.
        tasks: how many tasks are coming.
    """
    if config.executor == "local":
        return _local(factory)
    from pipeline.workers.ray_pool import (
        ray_pool,  # imported here so that EXECUTOR=local works where ray is not installed
    )

    return ray_pool(factory, config, tasks=tasks)


@contextmanager
def _local(factory: WorkerFactory[Worker]) -> Iterator[AbstractPool[Worker]]:
    yield LocalPool(factory)
