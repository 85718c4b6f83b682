"""A group of workers on Ray that need one another: all of them start, or none (gang scheduling)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Generic, final

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipeline.config import RunConfig
from pipeline.workers.installation import installation
from pipeline.workers.pool import Result, Task, Worker, WorkerFactory
from pipeline.workers.ray_cluster import RayActor, cannot_start, open_ray, result_of
from pipeline.workers.worker_count import capacity, too_few_workers
from storage_schemas.format.errors import Problem, SettingError


@final
class WorkerGroup(Generic[Worker]):
    """Workers that are all there. Each has an actor of its own, in one bundle of a Ray placement group."""

    def __init__(self, actors: Sequence[Any], addresses: Sequence[str]) -> None:
        self._actors, self.addresses = actors, addresses

    def run(self, step: Callable[[Worker, Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """Run a step on the first `len(tasks)` workers at the same time, one task each.

        Returns:
            The results, in the order of the workers.

        Raises:
            SettingError: a worker was lost.
        """
        pairs = enumerate(zip(self._actors, tasks, strict=False))
        calls = [actor.run.remote(step, index, task) for index, (actor, task) in pairs]
        return [self._result(index, call) for index, call in enumerate(calls)]

    def _result(self, index: int, call: Any) -> Any:
        try:
            return result_of(call)
        except RayTaskError:
            raise
        except RayError as error:
            place = f"worker {index + 1} of {len(self._actors)} on {self.addresses[index]}"
            found = f"was lost: {str(error).splitlines()[0]}"
            fix = "run the same command again: it resumes"
            raise SettingError("ray cluster", [Problem(place=place, found=found, fix=fix)]) from None


@contextmanager
def ray_group(factory: WorkerFactory[Worker], config: RunConfig) -> Iterator[WorkerGroup[Worker]]:
    """Start a group of workers on the cluster at RAY_ADDRESS, or on a Ray of this machine; end it with the block.

    Args:
        factory: makes a worker.
        config: how many workers, the CPUs and GPUs of each, and how long to wait until all of them can start.

    Raises:
        SettingError: the workers could not all start in time.
    """
    open_ray(config, config.min_workers)
    try:
        with _started(factory, config, _reserved(config)) as group:
            yield group
    finally:
        ray.shutdown()  # which also ends the reservation


def _reserved(config: RunConfig) -> PlacementGroup:
    """Reserve one bundle of CPUs and GPUs for each worker: Ray grants all of them together or none."""
    count = config.workers or max(capacity(config, ray.nodes()), config.min_workers)
    bundle = {"CPU": float(config.threads)} | ({"GPU": float(config.gpus)} if config.gpus else {})
    bundles = placement_group([bundle] * count, strategy="PACK")
    if not ray.wait([bundles.ready()], timeout=config.patience)[0]:
        wanted = replace(config, workers=count, min_workers=count)
        raise too_few_workers(wanted, 0, [node for node in ray.nodes() if node["Alive"]], "")
    return bundles


@contextmanager
def _started(
    factory: WorkerFactory[Worker], config: RunConfig, bundles: PlacementGroup
) -> Iterator[WorkerGroup[Worker]]:
    actors: list[Any] = []
    for index in range(bundles.bundle_count):
        there = PlacementGroupSchedulingStrategy(bundles, placement_group_bundle_index=index)
        as_actor = ray.remote(num_cpus=config.threads, num_gpus=config.gpus, max_restarts=0, scheduling_strategy=there)
        actors.append(as_actor(RayActor).remote())
    try:
        starts = [actor.start.remote(factory, installation()) for actor in actors]
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        yield WorkerGroup(actors, [addresses[_node_of(start)] for start in starts])
    finally:
        for actor in actors:
            ray.kill(actor)


def _node_of(start: Any) -> str:
    try:
        return result_of(start)
    except RayError as error:
        raise cannot_start(getattr(error, "cause", error)) from None
