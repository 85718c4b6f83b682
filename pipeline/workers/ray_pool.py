"""A pool whose workers are Ray actors, on this machine or a cluster: it grows, shrinks, and repeats lost tasks."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, final

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from pipeline.config import RunConfig
from pipeline.workers.allocator import allocator_environment
from pipeline.workers.installation import installation
from pipeline.workers.pool import AbstractPool, Task, Worker, WorkerFactory
from pipeline.workers.ray_actors import Attempt, PoolActors, StartedActor
from pipeline.workers.ray_cluster import ToFinish, cannot_start, open_ray, result_of
from pipeline.workers.worker_count import too_few_workers, wanted_workers
from storage_schemas.format.errors import Problem, SettingError

RETRIES = 3
"""How often a task that lost its actor is tried again, before the run stops and names the task. When a whole node is
lost, that loss does not count."""
IDLE_SECONDS = 15.0
"""An actor that has been idle for longer is ended, which frees its GPU; the fewest workers are kept."""
POLL_SECONDS = 1.0
"""How often the pool asks Ray which nodes live, and how long it waits before it replaces an actor that could not
start."""


@final
class RayPool(AbstractPool[Worker]):
    """Runs tasks on actors that hold one worker each.

    `run` is one loop. In each round it
    1. looks at the cluster's nodes, at most once a second (`_refresh_nodes`);
    2. gives waiting tasks to idle actors;
    3. asks for more actors, or ends some, so that there are as many as tasks and cluster allow (`_scale`), and stops
       the run when there were too few for too long (`_require_fewest`);
    4. waits for one event: an actor has started (`_on_start`), or a step or the rest of a task has ended (`_on_end`).

    A task whose actor was lost is put first in the queue of waiting tasks.
    """

    def __init__(
        self, factory: WorkerFactory[Worker], config: RunConfig, environment: Mapping[str, str] | None = None
    ) -> None:
        self._config = config
        self._actors = PoolActors(factory, config, installation(), environment or {})
        self._nodes: Sequence[Mapping[str, Any]] = ()
        self._nodes_read = self._start_failed = -POLL_SECONDS
        self._short_since: float | None = None
        self._last_loss = ""

    def run(self, step: Callable[[Worker, Task], Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Run the step over all tasks; see the class."""
        actors, waiting = self._actors, deque(Attempt(index=index, task=task) for index, task in enumerate(tasks))
        try:
            while waiting or actors.running or actors.finishing:
                self._refresh_nodes()
                while waiting and actors.idle:
                    actors.run(step, waiting.popleft())
                self._scale(len(waiting) + len(actors.running))
                for reference in ray.wait(actors.awaited, num_returns=1, timeout=POLL_SECONDS)[0]:
                    if reference in actors.starting:
                        self._on_start(reference)
                    else:
                        yield from self._on_end(reference, step, waiting)
        finally:
            # a caller who stops early leaves actors busy; the next run must not wait for them
            actors.kill_busy()

    def release(self) -> None:
        """End all actors. It must happen while Ray is still up."""
        self._actors.release()

    def _refresh_nodes(self, *, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self._nodes_read >= POLL_SECONDS:
            self._nodes, self._nodes_read = [node for node in ray.nodes() if node["Alive"]], time.monotonic()
            self._actors.forget_lost_nodes(self._living())

    def _living(self) -> set[str]:
        return {node["NodeID"] for node in self._nodes}

    def _scale(self, tasks: int) -> None:
        """Ask for actors or end some; refuse to go on with too few.

        Args:
            tasks: that wait or run.
        """
        actors, fewest = self._actors, self._config.min_workers
        started, wanted = actors.started, wanted_workers(self._config, self._nodes, tasks)
        if time.monotonic() - self._start_failed >= POLL_SECONDS:
            for _ in range(wanted - started - len(actors.starting)):
                actors.start()
        while actors.starting and started + len(actors.starting) > wanted:
            actors.cancel_start()
        actors.kill_unused(started - max(wanted, fewest), IDLE_SECONDS)
        self._require_fewest(started, min(fewest, tasks))

    def _require_fewest(self, started: int, fewest: int) -> None:
        """Stop the run when there have been too few workers for `patience` seconds."""
        now = time.monotonic()
        self._short_since = (self._short_since or now) if started < fewest else None
        if self._short_since is not None and now - self._short_since > self._config.patience:
            raise too_few_workers(self._config, started, self._nodes, self._last_loss)

    def _on_start(self, reference: Any) -> None:
        """Take an actor that has started; stop the run if its worker can never start, else note that it was lost."""
        try:
            self._actors.admit(reference)
        except RayTaskError as error:
            raise cannot_start(error.cause) from None
        except RayError as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise cannot_start(error) from None
            self._start_failed, self._last_loss = time.monotonic(), str(error)

    def _on_end(self, reference: Any, step: Callable[..., Any], waiting: deque[Attempt]) -> Iterator[tuple[int, Any]]:
        """Yield a task's result, or let its actor finish it, or queue it again because its actor was lost."""
        actors, finished = self._actors, reference in self._actors.finishing
        actor, attempt = (actors.finishing if finished else actors.running).pop(reference)
        try:
            result = result_of(reference)
        except RayTaskError:
            raise  # the step itself raised an error, and would raise it again
        except RayError as error:
            waiting.appendleft(self._after_loss(actor, attempt, step, error))
            return
        actor.idle_since = time.monotonic()
        if not finished:
            actors.idle.append(actor)
        if isinstance(result, ToFinish):
            actors.finish(actor, attempt)
        else:
            yield attempt.index, result

    def _after_loss(self, actor: StartedActor, attempt: Attempt, step: Callable[..., Any], error: RayError) -> Attempt:
        """Return the next attempt at a task whose actor was lost.

        Raises:
            SettingError: the task lost more than `RETRIES` actors on nodes that still live.
        """
        self._actors.kill(actor)
        self._refresh_nodes(at_once=True)
        self._last_loss, lost_on = str(error), (*attempt.lost_on, actor.node)
        if sum(node in self._living() for node in lost_on) > RETRIES:
            found = f"{step.__name__} lost its worker {RETRIES + 1} times: {error}"
            fix = "probably out of memory: lower the batch, or see Ray's logs; what is committed is kept"
            raise SettingError("worker", [Problem(place=repr(attempt.task)[:200], found=found, fix=fix)]) from None
        print(f"ray: a worker was lost; its task ({step.__name__}) starts again", file=sys.stderr)
        return replace(attempt, lost_on=lost_on)


@contextmanager
def ray_pool(
    factory: WorkerFactory[Worker], config: RunConfig, *, tasks: int, forwards: bool = False
) -> Iterator[AbstractPool[Worker]]:
    """Open a pool on the cluster at RAY_ADDRESS, or on a Ray of this machine that ends with the block.

    Args:
        factory: makes a worker.
        config: how many workers, and the CPUs and GPUs of each.
        tasks: how many tasks will be run.
        forwards: whether the workers run teachers; see `pipeline.workers.allocator`.

    Raises:
        SettingError: `config.min_workers` workers do not fit on this machine. A cluster may grow: there the run stops
            when it had fewer workers for `config.patience` seconds, at its start or later.
    """
    open_ray(config, tasks)
    pool = RayPool(factory, config, allocator_environment() if forwards and not config.gpus else {})
    try:
        yield pool
    finally:
        pool.release()
        ray.shutdown()
