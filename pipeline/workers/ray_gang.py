"""Workers on Ray that need one another: all of them are there, or none."""

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
from pipeline.workers.pool import Task, Worker, WorkerFactory
from pipeline.workers.ray_cluster import RayActor, cannot_start, open_ray, result_of
from pipeline.workers.worker_count import room, too_few_workers
from storage_schemas.format.errors import Problem, SettingError


@final
class RayGang(Generic[Worker]):
    """Workers that are all there or none, each in a place of its own."""

    def __init__(self, actors: Sequence[Any], addresses: Sequence[str]) -> None:
        self._actors, self.addresses = actors, addresses

    def ask(self, step: Callable[[Worker, Task], Any], tasks: Sequence[Task]) -> list[Any]:
        """Run a worker's method at once on as many of them as there are tasks, and return the results in their order.

        Raises:
            SettingError: a worker was lost.
        """
        pairs = enumerate(zip(self._actors, tasks, strict=False))
        asked = [actor.run.remote(step, place, task) for place, (actor, task) in pairs]
        return [self._answer(place, reference) for place, reference in enumerate(asked)]

    def _answer(self, place: int, reference: Any) -> Any:
        try:
            return result_of(reference)
        except RayTaskError:
            raise
        except RayError as error:
            where = f"worker {place + 1} of {len(self._actors)} on {self.addresses[place]}"
            found = f"was lost: {str(error).splitlines()[0]}"
            fix = "run the same command again: it goes on where this one was"
            raise SettingError("ray cluster", [Problem(place=where, found=found, fix=fix)]) from None


@contextmanager
def ray_gang(factory: WorkerFactory[Worker], config: RunConfig) -> Iterator[RayGang[Worker]]:
    """Hold places on the cluster of RAY_ADDRESS, or on a Ray of this machine, for workers that need one another.

    Args:
        factory: makes a worker.
        config: how many workers, threads and GPUs of each; and how long all of them are waited for.

    Raises:
        SettingError: they cannot be had.
    """
    open_ray(config, config.min_workers)
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
def _gang(factory: WorkerFactory[Worker], config: RunConfig, places: PlacementGroup) -> Iterator[RayGang[Worker]]:
    actors: list[Any] = []
    for place in range(places.bundle_count):
        there = PlacementGroupSchedulingStrategy(places, placement_group_bundle_index=place)
        as_actor = ray.remote(num_cpus=config.threads, num_gpus=config.gpus, max_restarts=0, scheduling_strategy=there)
        actors.append(as_actor(RayActor).remote())
    try:
        started = [actor.start.remote(factory, installation()) for actor in actors]
        on = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        yield RayGang(actors, [on[_greeted(one)] for one in started])
    finally:
        for actor in actors:
            ray.kill(actor)


def _greeted(started: Any) -> str:
    try:
        return result_of(started)
    except RayError as error:
        raise cannot_start(getattr(error, "cause", error)) from None
