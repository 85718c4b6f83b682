"""The actors of a Ray pool, and the state that each of them is in.

    starting ──► idle ◄──► running

An actor is *starting* until its worker is made. Then it is *idle*, or *running* a step. A step may leave the rest of
its task for later (`Unfinished`): the actor then is also *finishing* that task, in a second thread, while it is idle or
runs the next step. An actor that is lost, or no longer needed, is killed and forgotten.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, final

import ray

from pipeline.config import RunConfig
from pipeline.workers.pool import Worker, WorkerFactory
from pipeline.workers.ray_cluster import RayActor, result_of

FINISHING = "finishing"
"""Ray concurrency group of an actor: the thread that finishes a task, beside the thread that runs steps."""


@final
@dataclass(slots=True, eq=False)
class StartedActor:
    """An actor whose worker is made."""

    handle: Any
    """Ray's handle of the actor."""
    node: str
    """ID of the node that it runs on."""
    idle_since: float
    """When its last step ended, or it started (seconds, monotonic clock)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """One attempt at a task."""

    index: int
    """Of the task."""
    task: Any
    lost_on: tuple[str, ...] = ()
    """Nodes on which earlier attempts lost their actor, one entry for each loss."""


@final
class PoolActors(Generic[Worker]):
    """All actors of one pool, by state. Keys are Ray's references to what each of them will return."""

    def __init__(
        self,
        factory: WorkerFactory[Worker],
        config: RunConfig,
        expected: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> None:
        self._factory, self._config, self._expected, self._environment = factory, config, expected, environment
        self.starting: dict[Any, Any] = {}
        self.idle: list[StartedActor] = []
        self.running: dict[Any, tuple[StartedActor, Attempt]] = {}
        self.finishing: dict[Any, tuple[StartedActor, Attempt]] = {}

    @property
    def started(self) -> int:
        """How many actors have a worker."""
        return len(self.idle) + len(self.running)

    @property
    def awaited(self) -> list[Any]:
        """References to everything that actors will return."""
        return [*self.running, *self.finishing, *self.starting]

    def start(self) -> None:
        """Ask Ray for one more actor."""
        # never restarted by Ray: the pool itself repeats a lost task, on any actor
        options: dict[str, Any] = {"concurrency_groups": {FINISHING: 1}}  # missing from Ray's types
        if self._environment:  # a process of its own, which takes a second more to start
            options["runtime_env"] = {"env_vars": dict(self._environment)}
        as_actor = ray.remote(num_cpus=self._config.threads, num_gpus=self._config.gpus, max_restarts=0, **options)
        handle: Any = as_actor(RayActor).remote()
        self.starting[handle.start.remote(self._factory, self._expected)] = handle

    def cancel_start(self) -> None:
        """Give up on the actor that was asked for last."""
        ray.kill(self.starting.popitem()[1])

    def admit(self, reference: Any) -> None:
        """Turn a starting actor into an idle one.

        Raises:
            Exception: whatever kept it from starting; it is forgotten then.
        """
        handle = self.starting.pop(reference)
        self.idle.append(StartedActor(handle, result_of(reference), time.monotonic()))

    def run(self, step: Callable[..., Any], attempt: Attempt) -> None:
        """Let an idle actor run a step."""
        actor = self.idle.pop()
        self.running[actor.handle.run.remote(step, attempt.index, attempt.task)] = (actor, attempt)

    def finish(self, actor: StartedActor, attempt: Attempt) -> None:
        """Let an actor finish a task that its step left unfinished."""
        call = actor.handle.finish.options(concurrency_group=FINISHING)
        self.finishing[call.remote(attempt.index)] = (actor, attempt)

    def kill(self, actor: StartedActor) -> None:
        """End an actor. One that was only unreachable may still live, so a lost one is killed too."""
        ray.kill(actor.handle)
        self.idle = [other for other in self.idle if other is not actor]

    def kill_unused(self, most: int, idle_seconds: float) -> None:
        """End actors that have been idle for longer than `idle_seconds` and finish nothing, at most so many."""
        now, finishing = time.monotonic(), [actor for actor, _ in self.finishing.values()]
        unused = [actor for actor in self.idle if actor not in finishing and now - actor.idle_since > idle_seconds]
        for actor in unused[: max(most, 0)]:
            self.kill(actor)

    def kill_busy(self) -> None:
        """End every actor that runs a step or finishes a task."""
        for actor, _ in (*self.running.values(), *self.finishing.values()):
            self.kill(actor)
        self.running.clear()
        self.finishing.clear()

    def forget_lost_nodes(self, living: set[str]) -> None:
        """Forget the idle actors of nodes that are gone."""
        self.idle = [actor for actor in self.idle if actor.node in living]

    def release(self) -> None:
        """Drop every handle, which ends the actors. It must happen while Ray is still up."""
        for state in (self.starting, self.idle, self.running, self.finishing):
            state.clear()
