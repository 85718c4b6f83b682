"""Ray: the same workers as actors, on this machine or a cluster. The only module that imports ray."""

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import ray
from ray.exceptions import AuthenticationError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipeline.config import RunConfig
from pipeline.crew_size import crew_size, require_room, room, too_few_workers
from pipeline.installation import installation, require_same_installation
from pipeline.pools import AbstractPool, Unfinished, WorkerFactory
from storage_schemas.errors import AbstractStillhouseError, Problem, SettingError

RETRIES = 3
"""How often a task is tried again elsewhere after its actor was lost, before the run stops and names it. The loss of a
node is no fault of the task, and does not count."""
IDLE_SECONDS = 15.0
"""An actor that has had no task for so long is given back, with its GPU, unless it is one of the fewest."""
LOOK_SECONDS = 1.0
"""How often the nodes are counted, and how soon an actor that could not start is replaced."""
OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory of a local Ray: only keys, counts and moments travel through it."""
FINISHING = "finishing"
"""Ray's name for the thread of an actor beside the one that does its steps."""
INSTALL = "install the same Stillhouse on every node, and there your own modules too; docs/cluster.md"


@final
@dataclass(slots=True, eq=False)
class _Worker:
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
class _ToFinish:
    """What comes of a step whose actor is free for the next task, and is to be told to finish this one."""


@final
class RayPool(AbstractPool):
    """Actors that hold one worker each: more of them while tasks wait and there is room, fewer when nodes go away or
    no task is left. What a lost actor was at is done again by another."""

    def __init__(self, factory: WorkerFactory, config: RunConfig) -> None:
        self._factory, self._config = factory, config
        self._installation = installation()
        self._starting: dict[Any, Any] = {}
        self._idle: list[_Worker] = []
        self._running: dict[Any, tuple[_Worker, _Attempt]] = {}
        self._finishing: dict[Any, tuple[_Worker, _Attempt]] = {}
        self._nodes: Sequence[Mapping[str, Any]] = ()
        self._looked = self._failed = -LOOK_SECONDS
        self._short_since: float | None = None
        self._last_loss = ""

    def run(self, step: str, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
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

    def _hand_out(self, step: str, attempt: _Attempt) -> None:
        worker = self._idle.pop()
        self._running[worker.actor.run.remote(step, attempt.index, attempt.task)] = (worker, attempt)

    def _collect(self, done: Any, step: str, waiting: deque[_Attempt]) -> Iterator[tuple[int, Any]]:
        """Yield a task's result, or have it finished; or have the task wait again, first of all, when its actor was
        lost.
        """
        finishing = done in self._finishing
        worker, attempt = (self._finishing if finishing else self._running).pop(done)
        try:
            result = _result(done)
        except RayError as error:
            waiting.appendleft(self._lost(worker, attempt, step, error))
            return
        worker.idle_since = time.monotonic()
        if not finishing:
            self._idle.append(worker)
        if isinstance(result, _ToFinish):
            in_group = worker.actor.finish.options(concurrency_group=FINISHING)
            self._finishing[in_group.remote(attempt.index)] = (worker, attempt)
        else:
            yield attempt.index, result

    def _lost(self, worker: _Worker, attempt: _Attempt, step: str, error: RayError) -> _Attempt:
        ray.kill(worker.actor)  # one that only could not be reached may still live
        self._idle = [one for one in self._idle if one is not worker]
        self._look(at_once=True)
        self._last_loss, lost_on = str(error), (*attempt.lost_on, worker.node)
        if sum(node in self._alive() for node in lost_on) > RETRIES:
            found = f"{step} lost its worker {RETRIES + 1} times: {error}"
            fix = "it is likely out of memory: lower the batch, or see Ray's logs; what is committed is kept"
            raise SettingError("worker", [Problem(place=repr(attempt.task)[:200], found=found, fix=fix)]) from None
        print(f"ray: a worker was lost; its task ({step}) is done again", file=sys.stderr)
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
        actor: Any = as_actor(_Actor).remote()
        self._starting[actor.start.remote(self._factory, self._installation)] = actor

    def _greet(self, started: Any) -> None:
        """Take an actor that has started among the idle; or note that it could not."""
        actor = self._starting.pop(started)
        try:
            self._idle.append(_Worker(actor, _result(started), time.monotonic()))
        except RayTaskError as error:
            raise _cannot_start(error.cause) from None
        except RayError as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise _cannot_start(error) from None
            self._failed, self._last_loss = time.monotonic(), str(error)

    def _look(self, *, at_once: bool = False) -> None:
        """Count the nodes, now and then, and forget the idle actors of those that are gone."""
        if at_once or time.monotonic() - self._looked >= LOOK_SECONDS:
            self._nodes, self._looked = [node for node in ray.nodes() if node["Alive"]], time.monotonic()
            self._idle = [worker for worker in self._idle if worker.node in self._alive()]

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self._nodes}


@contextmanager
def ray_pool(factory: WorkerFactory, config: RunConfig, *, tasks: int) -> Iterator[AbstractPool]:
    """Open a pool on the cluster of RAY_ADDRESS, or on a Ray of this machine that ends with the block.

    Args:
        factory: makes a worker.
        config: how many workers, threads and GPUs of each.
        tasks: how many tasks are coming.

    Raises:
        SettingError: the fewest workers do not fit this machine. A cluster may grow: there, as many must be had within
            `config.patience` seconds, at any time of the run.
    """
    _open(config, tasks)
    pool = RayPool(factory, config)
    try:
        yield pool
    finally:
        pool.forget()
        ray.shutdown()


@final
class RayGang:
    """Workers that are all there or none, each in a place of its own."""

    def __init__(self, actors: Sequence[Any], addresses: Sequence[str]) -> None:
        self._actors, self.addresses = actors, addresses

    def ask(self, step: str, tasks: Sequence[Any]) -> list[Any]:
        """Run a worker's method at once on as many of them as there are tasks, and return the results in their order.

        Raises:
            SettingError: a worker was lost.
        """
        pairs = enumerate(zip(self._actors, tasks, strict=False))
        asked = [actor.run.remote(step, place, task) for place, (actor, task) in pairs]
        return [self._answer(place, reference) for place, reference in enumerate(asked)]

    def _answer(self, place: int, reference: Any) -> Any:
        try:
            return _result(reference)
        except RayTaskError:
            raise
        except RayError as error:
            where = f"worker {place + 1} of {len(self._actors)} on {self.addresses[place]}"
            found = f"was lost: {str(error).splitlines()[0]}"
            fix = "run the same command again: it goes on where this one was"
            raise SettingError("ray cluster", [Problem(place=where, found=found, fix=fix)]) from None


@contextmanager
def ray_gang(factory: WorkerFactory, config: RunConfig) -> Iterator[RayGang]:
    """Hold places on the cluster of RAY_ADDRESS, or on a Ray of this machine, for workers that need one another.

    Args:
        factory: makes a worker.
        config: how many workers, threads and GPUs of each; and how long all of them are waited for.

    Raises:
        SettingError: they cannot be had.
    """
    _open(config, config.min_workers)
    try:
        with _gang(factory, config, _hold_places(config)) as gang:
            yield gang
    finally:
        ray.shutdown()  # which gives the places back


def _hold_places(config: RunConfig) -> PlacementGroup:
    count = config.workers or max(room(config, ray.nodes()), config.min_workers)
    needs = {"CPU": float(config.threads)} | ({"GPU": float(config.gpus)} if config.gpus else {})
    places = placement_group([needs] * count, strategy="PACK")
    if not ray.wait([places.ready()], timeout=config.patience)[0]:
        asked = replace(config, workers=count, min_workers=count)
        raise too_few_workers(asked, 0, [node for node in ray.nodes() if node["Alive"]], "")
    return places


@contextmanager
def _gang(factory: WorkerFactory, config: RunConfig, places: PlacementGroup) -> Iterator[RayGang]:
    actors: list[Any] = []
    for place in range(places.bundle_count):
        there = PlacementGroupSchedulingStrategy(places, placement_group_bundle_index=place)
        as_actor = ray.remote(num_cpus=config.threads, num_gpus=config.gpus, max_restarts=0, scheduling_strategy=there)
        actors.append(as_actor(_Actor).remote())
    try:
        started = [actor.start.remote(factory, installation()) for actor in actors]
        on = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        yield RayGang(actors, [on[_greeted(one)] for one in started])
    finally:
        for actor in actors:
            ray.kill(actor)


def _greeted(started: Any) -> str:
    try:
        return _result(started)
    except RayError as error:
        raise _cannot_start(getattr(error, "cause", error)) from None


def _open(config: RunConfig, tasks: int) -> None:
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
class _Actor:
    """A process for one worker."""

    def start(self, factory: WorkerFactory, expected: Mapping[str, str]) -> str:
        """Make the worker, and return the node that it is on."""
        require_same_installation(expected, installation(), ray.util.get_node_ip_address())
        self._worker = factory()
        self._unfinished: dict[int, Unfinished] = {}
        self._room = threading.Semaphore(1)  # one task is finished while the next is at work
        return ray.get_runtime_context().get_node_id()

    def run(self, step: str, index: int, task: Any) -> Any:
        result = getattr(self._worker, step)(task)
        if not isinstance(result, Unfinished):
            return result
        self._room.acquire()
        self._unfinished[index] = result
        return _ToFinish()

    def finish(self, index: int) -> Any:
        """Do what is left of a task, and return its result."""
        try:
            return self._unfinished.pop(index).finish()
        finally:
            self._room.release()


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, AbstractStillhouseError | OSError):
            raise error.cause from None
        raise


def _cannot_start(error: Exception) -> SettingError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    found = f"cannot start: {lines[-1] if lines else type(error).__name__}"
    return SettingError("worker", [Problem(place="ray", found=found, fix=INSTALL)])
