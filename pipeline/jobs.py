"""Ray: the same workers as actors, on this machine or a cluster. The only module that imports ray."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.config import RunConfig
from pipeline.pools import AbstractPool, WorkerFactory
from storage_schemas.errors import AbstractStillhouseError, Problem, SettingError

RETRIES = 3
"""How often a task is tried again elsewhere after its actor was lost, before the run stops and names it."""
OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory of a local Ray: only keys, counts and moments travel through it."""


@final
class RayPool(AbstractPool):
    """Actors that hold one worker each. A lost actor starts again, and its task with it."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors

    def run(self, step: str, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        idle, waiting = list(self._actors), list(enumerate(tasks))[::-1]
        running: dict[Any, tuple[int, Any]] = {}
        while waiting or running:
            while idle and waiting:
                (index, task), actor = waiting.pop(), idle.pop()
                running[actor.run.remote(step, task)] = (index, actor)
            [done], _ = ray.wait(list(running), num_returns=1)
            index, actor = running.pop(done)
            yield index, _result(done, step, tasks[index])
            idle.append(actor)


@contextmanager
def ray_pool(factory: WorkerFactory, config: RunConfig, *, tasks: int) -> Iterator[AbstractPool]:
    """Start actors on the cluster of RAY_ADDRESS, or on a Ray of this machine that ends with the block.

    Args:
        factory: makes a worker.
        config: workers, threads and GPUs of each.
        tasks: how many tasks are coming.
    """
    _start(config)
    try:
        count = min(_workers(config), max(tasks, 1))
        as_actor = ray.remote(num_cpus=config.threads, num_gpus=config.gpus, max_restarts=-1, max_task_retries=RETRIES)
        actor = as_actor(_Actor)
        yield RayPool([actor.remote(factory) for _ in range(count)])
    finally:
        ray.shutdown()


@final
class _Actor:
    def __init__(self, factory: WorkerFactory) -> None:
        self._worker = factory()

    def run(self, step: str, task: Any) -> Any:
        return getattr(self._worker, step)(task)


def _start(config: RunConfig) -> None:
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
        return
    # workers and driver share this machine's installation; Ray would otherwise copy the working folder to each
    ray.init(
        address="local",
        num_cpus=max(config.workers * config.threads, os.cpu_count() or 1),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def _workers(config: RunConfig) -> int:
    resources, wanted = ray.cluster_resources(), max(config.workers, 1)
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    by_cpu = cpus / config.threads
    by_gpu = gpus / config.gpus if config.gpus else by_cpu
    room = int(min(by_cpu, by_gpu) + 1e-9)  # ten times a tenth of a GPU is one
    if room < wanted:  # Ray would wait for more machines for ever
        each = f"{config.threads} CPUs and {config.gpus:g} GPUs each"
        found = f"{wanted} workers of {each} do not fit its {cpus:g} CPUs and {gpus:g} GPUs"
        fix = "lower --run.workers, --run.threads or --run.gpus"
        raise SettingError("ray cluster", [Problem(place="resources", found=found, fix=fix)])
    return config.workers or room


def _result(reference: Any, step: str, task: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, AbstractStillhouseError | OSError):
            raise error.cause from None
        raise
    except RayError as error:
        found = f"{step} lost its worker {RETRIES + 1} times: {error}"
        fix = "it is likely out of memory: lower the batch, or see Ray's logs; what is committed is kept"
        raise SettingError("worker", [Problem(place=repr(task)[:200], found=found, fix=fix)]) from None
