"""Reaching a Ray cluster, and the process of one worker on it."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, final

import ray
from ray.exceptions import AuthenticationError, RayTaskError

from pipeline.config import RunConfig
from pipeline.workers.installation import installation, require_same_installation
from pipeline.workers.pool import Task, Unfinished, Worker, WorkerFactory
from pipeline.workers.worker_count import require_room
from storage_schemas.format.errors import AbstractStillhouseError, Problem, SettingError

OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory of a local Ray: only keys, counts and moments travel through it."""
INSTALL = "install the same Stillhouse on every node, and there your own modules too; docs/cluster.md"


@final
class ToFinish:
    """What comes of a step whose actor is free for the next task, and is to be told to finish this one."""


def open_ray(config: RunConfig, tasks: int) -> None:
    """Connect to the cluster of RAY_ADDRESS; without it, start a Ray of this machine.

    Args:
        config: how many workers, threads and GPUs of each.
        tasks: how many tasks are coming.

    Raises:
        SettingError: no cluster answers, or the fewest workers do not fit this machine.
    """
    if "RAY_ADDRESS" in os.environ:
        _connect(os.environ["RAY_ADDRESS"])
    else:
        _start_own(config, tasks)


def _connect(address: str) -> None:
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, AuthenticationError) as error:
        found, fix = f"no Ray answers: {error}", "see docs/cluster.md; without RAY_ADDRESS this machine is used"
        raise SettingError("RAY_ADDRESS", [Problem(place=address, found=found, fix=fix)]) from None


def _start_own(config: RunConfig, tasks: int) -> None:
    # workers and driver share this machine's installation; Ray would otherwise copy the working folder to each
    ray.init(
        address="local",
        num_cpus=max(config.workers * config.threads, os.cpu_count() or 1),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        require_room(config, ray.nodes(), tasks)
    except SettingError:
        ray.shutdown()
        raise


@final
class RayActor(Generic[Worker]):
    """A process for one worker."""

    def start(self, factory: WorkerFactory[Worker], expected: Mapping[str, str]) -> str:
        """Make the worker, and return the node that it is on."""
        require_same_installation(expected, installation(), ray.util.get_node_ip_address())
        self._worker = factory()
        self._unfinished: dict[int, Unfinished[Any]] = {}
        self._room = threading.Semaphore(1)  # one task is finished while the next is at work
        return ray.get_runtime_context().get_node_id()

    def run(self, step: Callable[[Worker, Task], Any], index: int, task: Task) -> Any:
        """Run a step of the worker; where something of it is left to do, return `ToFinish` and keep it."""
        result = step(self._worker, task)
        if not isinstance(result, Unfinished):
            return result
        self._room.acquire()
        self._unfinished[index] = result
        return ToFinish()

    def finish(self, index: int) -> Any:
        """Do what is left of a task, and return its result."""
        try:
            return self._unfinished.pop(index).finish()
        finally:
            self._room.release()


def result_of(reference: Any) -> Any:
    """Wait for a result. An error that is a message for the user is raised as it was raised in the worker."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, AbstractStillhouseError | OSError):
            raise error.cause from None
        raise


def cannot_start(error: Exception) -> SettingError:
    """Return the refusal of a worker whose process cannot start, with the last line of what it said."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    found = f"cannot start: {lines[-1] if lines else type(error).__name__}"
    return SettingError("worker", [Problem(place="ray", found=found, fix=INSTALL)])
