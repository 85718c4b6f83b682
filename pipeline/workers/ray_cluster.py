"""Reaching a Ray cluster, and the actor that holds one worker there."""

import logging
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Generic, final

import ray
from ray.exceptions import AuthenticationError, RayTaskError

from pipeline.config import RunConfig
from pipeline.workers.installation import installation, require_same_installation
from pipeline.workers.interruption import catch_signals, note_signal
from pipeline.workers.pool import Task, Unfinished, Worker, WorkerFactory
from pipeline.workers.worker_count import require_capacity
from storage_schemas.format.errors import AbstractStillhouseError, Problem, SettingError

OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory of a local Ray: only keys, counts and moments travel through it."""
SOCKET_BYTES = 107
"""Longest name of a socket on Linux. Ray adds about 60 bytes to the folder that it puts them in."""
LOCAL_FIX = "without Ray: EXECUTOR=local, or --run.executor local"
INSTALL = "install the same Stillhouse, and your own modules, on every node; docs/cluster.md"


@final
class ToFinish:
    """What an actor returns for an `Unfinished` step: it is free for its next task, and waits to be asked to finish."""


def open_ray(config: RunConfig, tasks: int) -> None:
    """Connect to the cluster at RAY_ADDRESS; where that is not set, start a Ray on this machine.

    Args:
        config: how many workers, and the CPUs and GPUs of each.
        tasks: how many tasks will be run.

    Raises:
        SettingError: no cluster answers, or `config.min_workers` workers do not fit on this machine.
    """
    if os.environ.get("RAY_ADDRESS"):
        _connect(os.environ["RAY_ADDRESS"])
    else:
        _start_own(config, tasks)


def _connect(address: str) -> None:
    try:
        _init(logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, AuthenticationError) as error:
        found = f"no Ray answers: {error}"
        fix = "check the address and RAY_AUTH_MODE (docs/cluster.md); without RAY_ADDRESS this machine is used"
        raise SettingError("RAY_ADDRESS", [Problem(place=address, found=found, fix=fix)]) from None


def _start_own(config: RunConfig, tasks: int) -> None:
    # "local": workers share this machine's installation; otherwise Ray would copy the working folder to each of them
    try:
        _init(
            address="local",
            num_cpus=max(config.workers * config.threads, os.cpu_count() or 1),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except Exception as error:  # whatever this machine denies: Ray has no class of errors for it
        ray.shutdown()
        raise _no_ray_here(error) from error
    try:
        require_capacity(config, ray.nodes(), tasks)
    except SettingError:
        ray.shutdown()
        raise


def _no_ray_here(error: Exception) -> SettingError:
    """Return the error for a Ray that cannot start on this machine."""
    text = str(error) or type(error).__name__
    problem = Problem(place="ray", found=f"cannot start on this machine: {text}", fix=LOCAL_FIX)
    if "AF_UNIX" in text:
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        found = f"is too long a path for Ray, whose sockets may have names of {SOCKET_BYTES} bytes"
        problem = Problem(place=folder, found=found, fix="set RAY_TMPDIR to a shorter path, such as /tmp")
    return SettingError("ray cluster", [problem])


def _init(**settings: Any) -> None:
    """Start Ray, or connect to it. Ray puts handlers of its own in the place of ours."""
    try:
        with warnings.catch_warnings():
            # Ray 2.54 announces a change for workers that ask for no GPU: nothing that a user can act on
            warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
            ray.init(**settings)
    except SystemExit as ended:  # Ray's own handler of SIGTERM
        note_signal(signal.SIGTERM)
        raise KeyboardInterrupt from ended
    finally:
        catch_signals()


@final
class RayActor(Generic[Worker]):
    """A process that holds one worker."""

    def start(self, factory: WorkerFactory[Worker], expected: Mapping[str, str]) -> str:
        """Make the worker, and return the ID of the node that it runs on.

        Raises:
            SettingError: this node's installation is not the driver's.
        """
        require_same_installation(expected, installation(), ray.util.get_node_ip_address())
        self._worker = factory()
        self._unfinished: dict[int, Unfinished[Any]] = {}
        self._may_leave = threading.Semaphore(1)  # at most one task is being finished while the next one runs
        return ray.get_runtime_context().get_node_id()

    def run(self, step: Callable[[Worker, Task], Any], index: int, task: Task) -> Any:
        """Run a step of the worker. Keep an `Unfinished` for `finish`, and return `ToFinish` for it."""
        result = step(self._worker, task)
        if not isinstance(result, Unfinished):
            return result
        self._may_leave.acquire()
        self._unfinished[index] = result
        return ToFinish()

    def finish(self, index: int) -> Any:
        """Finish a task that `run` left unfinished, and return its result."""
        try:
            return self._unfinished.pop(index).finish()
        finally:
            self._may_leave.release()


def result_of(reference: Any) -> Any:
    """Wait for a result.

    An error that is a message for the user (ours, or an OSError) is raised as the worker raised it, without Ray's
    wrapping.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, AbstractStillhouseError | OSError):
            raise error.cause from None
        raise


def cannot_start(error: Exception) -> SettingError:
    """Return the error for a worker whose process cannot start, with the last line of Ray's message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    found = f"cannot start: {lines[-1] if lines else type(error).__name__}"
    return SettingError("worker", [Problem(place="ray", found=found, fix=INSTALL)])
