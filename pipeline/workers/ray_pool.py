"""Ray: the same workers as actors, on this machine or a cluster. The only module that imports ray."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from pipeline.config import RunConfig
from pipeline.workers.installation import installation
from pipeline.workers.pool import AbstractPool, Task, Worker, WorkerFactory
from pipeline.workers.ray_cluster import RayActor, ToFinish, cannot_start, open_ray, result_of
from pipeline.workers.worker_count import crew_size, too_few_workers
from storage_schemas.format.errors import Problem, SettingError

RETRIES = 3
"""How often a task is tried again elsewhere after its actor was lost, before the run stops and names it. The loss of a
node is no fault of the task, and does not count."""
IDLE_SECONDS = 15.0
"""An actor that has had no task for so long is given back, with its GPU, unless it is one of the fewest."""
LOOK_SECONDS = 1.0
"""How often the nodes are counted, and how soon an actor that could not start is replaced."""
FINISHING = "finishing"
"""Ray's name for the thread of an actor beside the one that does its steps."""


@final
@dataclass(slots=True, eq=False)
class _Place:
    """An actor that has started."""

    actor: Any
    node: str
    idle_since: float = 0.0


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attempt:
    """A task, and the nodes on which it has cost an actor."""

    index: int
    task: Any
    lost_on: tuple[str, ...] = ()


@final
class RayPool(AbstractPool[Worker]):
    """Actors that hold one worker each: more of them while tasks wait and there is room, fewer when nodes go away or
    no task is left. What a lost actor was at is done again by another."""

    def __init__(self, factory: WorkerFactory[Worker], config: RunConfig) -> None:
        self._factory, self._config = factory, config
        self._installation = installation()
        self._starting: dict[Any, Any] = {}
        self._idle: list[_Place] = []
        self._running: dict[Any, tuple[_Place, _Attempt]] = {}
        self._finishing: dict[Any, tuple[_Place, _Attempt]] = {}
        self._nodes: Sequence[Mapping[str, Any]] = ()
        self._looked = self._failed = -LOOK_SECONDS
        self._short_since: float | None = None
        self._last_loss = ""

    def run(self, step: Callable[[Worker, Task], Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        waiting = deque(_Attempt(index=index, task=task) for index, task in enumerate(tasks))
        try:
            while waiting or self._running or self._finishing:
                self._look()
                while waiting and self._idle:
                    self._hand_out(step, waiting.popleft())
                self._resize(len(waiting) + len(self._running))
                pending = [*self._running, *self._finishing, *self._starting]
                for done in ray.wait(pending, num_returns=1, timeout=LOOK_SECONDS)[0]:
                    if done in self._starting:
                        self._greet(done)
                    else:
                        yield from self._collect(done, step, waiting)
        finally:
            # whoever asks for no more results leaves actors at work, which the next run must not queue behind
            at_work = [worker for worker, _ in (*self._running.values(), *self._finishing.values())]
            for worker in at_work:
                ray.kill(worker.actor)
            self._idle = [one for one in self._idle if one not in at_work]
            self._running.clear()
            self._finishing.clear()

    def forget(self) -> None:
        """Let go of all actors, while there is still a Ray to let go of them to."""
        self._starting.clear()
        self._idle.clear()
        self._running.clear()
        self._finishing.clear()

    def _hand_out(self, step: Callable[..., Any], attempt: _Attempt) -> None:
        worker = self._idle.pop()
        self._running[worker.actor.run.remote(step, attempt.index, attempt.task)] = (worker, attempt)

    def _collect(self, done: Any, step: Callable[..., Any], waiting: deque[_Attempt]) -> Iterator[tuple[int, Any]]:
        """Yield a task's result, or have it finished; or have the task wait again, first of all, when its actor was
        lost.
        """
        finishing = done in self._finishing
        worker, attempt = (self._finishing if finishing else self._running).pop(done)
        try:
            result = result_of(done)
        except RayError as error:
            waiting.appendleft(self._lost(worker, attempt, step, error))
            return
        worker.idle_since = time.monotonic()
        if not finishing:
            self._idle.append(worker)
        if isinstance(result, ToFinish):
            in_group = worker.actor.finish.options(concurrency_group=FINISHING)
            self._finishing[in_group.remote(attempt.index)] = (worker, attempt)
        else:
            yield attempt.index, result

    def _lost(self, worker: _Place, attempt: _Attempt, step: Callable[..., Any], error: RayError) -> _Attempt:
        ray.kill(worker.actor)  # one that only could not be reached may still live
        self._idle = [one for one in self._idle if one is not worker]
        self._look(at_once=True)
        self._last_loss, lost_on = str(error), (*attempt.lost_on, worker.node)
        if sum(node in self._alive() for node in lost_on) > RETRIES:
            found = f"{step.__name__} lost its worker {RETRIES + 1} times: {error}"
            fix = "it is likely out of memory: lower the batch, or see Ray's logs; what is committed is kept"
            raise SettingError("worker", [Problem(place=repr(attempt.task)[:200], found=found, fix=fix)]) from None
        print(f"ray: a worker was lost; its task ({step.__name__}) is done again", file=sys.stderr)
        return replace(attempt, lost_on=lost_on)

    def _resize(self, tasks: int) -> None:
        """Ask for actors, or give some back, and see that there are enough."""
        now, ready = time.monotonic(), len(self._idle) + len(self._running)
        wanted = crew_size(self._config, self._nodes, tasks)
        if now - self._failed >= LOOK_SECONDS:
            for _ in range(wanted - ready - len(self._starting)):
                self._start()
        while self._starting and ready + len(self._starting) > wanted:
            ray.kill(self._starting.popitem()[1])
        spare, finishing = ready - max(wanted, self._config.min_workers), [one for one, _ in self._finishing.values()]
        unused = [one for one in self._idle if one not in finishing and now - one.idle_since > IDLE_SECONDS]
        for worker in unused[: max(spare, 0)]:
            self._idle.remove(worker)
            ray.kill(worker.actor)
        self._short_since = (self._short_since or now) if ready < min(self._config.min_workers, tasks) else None
        if self._short_since is not None and now - self._short_since > self._config.patience:
            raise too_few_workers(self._config, ready, self._nodes, self._last_loss)

    def _start(self) -> None:
        # the pool itself does again what was lost: Ray would do it only where the same actor can start again
        groups: dict[str, Any] = {"concurrency_groups": {FINISHING: 1}}  # which Ray's types do not know
        as_actor = ray.remote(num_cpus=self._config.threads, num_gpus=self._config.gpus, max_restarts=0, **groups)
        actor: Any = as_actor(RayActor).remote()
        self._starting[actor.start.remote(self._factory, self._installation)] = actor

    def _greet(self, started: Any) -> None:
        """Take an actor that has started among the idle; or note that it could not."""
        actor = self._starting.pop(started)
        try:
            self._idle.append(_Place(actor, result_of(started), time.monotonic()))
        except RayTaskError as error:
            raise cannot_start(error.cause) from None
        except RayError as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise cannot_start(error) from None
            self._failed, self._last_loss = time.monotonic(), str(error)

    def _look(self, *, at_once: bool = False) -> None:
        """Count the nodes, now and then, and forget the idle actors of those that are gone."""
        if at_once or time.monotonic() - self._looked >= LOOK_SECONDS:
            self._nodes, self._looked = [node for node in ray.nodes() if node["Alive"]], time.monotonic()
            self._idle = [worker for worker in self._idle if worker.node in self._alive()]

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self._nodes}


@contextmanager
def ray_pool(factory: WorkerFactory[Worker], config: RunConfig, *, tasks: int) -> Iterator[AbstractPool[Worker]]:
    """Open a pool on the cluster of RAY_ADDRESS, or on a Ray of this machine that ends with the block.

    Args:
        factory: makes a worker.
        config: how many workers, threads and GPUs of each.
        tasks: how many tasks are coming.

    Raises:
        SettingError: the fewest workers do not fit this machine. A cluster may grow: there, as many must be had within
            `config.patience` seconds, at any time of the run.
    """
    open_ray(config, tasks)
    pool = RayPool(factory, config)
    try:
        yield pool
    finally:
        pool.forget()
        ray.shutdown()
