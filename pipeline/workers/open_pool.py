"""Opening the pool that a run's settings ask for: this process, or Ray."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, final

from pipeline.config import RunConfig
from pipeline.workers.pool import AbstractPool, Task, Unfinished, Worker, WorkerFactory


@final
class LocalPool(AbstractPool[Worker]):
    """One worker in this process: for debugging, for machines without Ray, and as the baseline of benchmarks."""

    def __init__(self, factory: WorkerFactory[Worker]) -> None:
        self._worker = factory()

    def run(self, step: Callable[[Worker, Task], Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Run the step over one task after the other; a second thread finishes a task while the next one runs."""
        finishing = deque[tuple[int, Future[Any]]]()
        with ThreadPoolExecutor(1) as thread:  # a caller who stops early waits here for the task being finished
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
    factory: WorkerFactory[Worker], config: RunConfig, *, tasks: int, forwards: bool = False
) -> AbstractContextManager[AbstractPool[Worker]]:
    """Open a pool of the kind that `config.executor` names.

    Args:
        factory: makes a worker.
        config: executor, number of workers, CPUs and GPUs of each.
        tasks: how many tasks will be run.
        forwards: whether the workers run teachers; see `pipeline.workers.allocator`. A teacher that is built in this
            process sees to it itself.
    """
    if config.executor == "local":
        return _local(factory)
    from pipeline.workers.ray_pool import ray_pool  # imported late: EXECUTOR=local works where Ray is not installed

    return ray_pool(factory, config, tasks=tasks, forwards=forwards)


@contextmanager
def _local(factory: WorkerFactory[Worker]) -> Iterator[AbstractPool[Worker]]:
    yield LocalPool(factory)
