"""How many workers there may be under ray: what the settings ask for, and what a cluster has room for."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.config import RunConfig
from storage_schemas.format.errors import Problem, SettingError

Nodes = Iterable[Mapping[str, Any]]
"""Nodes as `ray.nodes()` tells of them: `Alive`, and `Resources` by name."""


def room(config: RunConfig, nodes: Nodes) -> int:
    """Return how many workers fit living nodes: a worker's CPUs and GPUs are all on one."""
    return sum(_room_of(config, node["Resources"]) for node in nodes if node["Alive"])


def crew_size(config: RunConfig, nodes: Nodes, tasks: int) -> int:
    """Return how many workers to ask for.

    A number that was set is asked for whether or not there is room: a cluster that adds nodes on demand adds them for
    what waits.

    Args:
        config: fewest and most workers, and what each takes.
        nodes: of the cluster.
        tasks: that are not done.
    """
    return min(config.workers or max(room(config, nodes), config.min_workers), tasks)


def require_room(config: RunConfig, nodes: Nodes, tasks: int) -> None:
    """Refuse nodes that have no room for the fewest workers, or for one to each task where there are fewer of these.

    Raises:
        SettingError: with what each worker takes and what there is.
    """
    nodes = list(nodes)
    if room(config, nodes) < min(config.min_workers, tasks):
        raise _refused(f"{_asked(config)} do not fit {_had(nodes)}")


def too_few_workers(config: RunConfig, ready: int, nodes: Nodes, last_loss: str) -> SettingError:
    """Return the refusal to wait any longer.

    Args:
        config: fewest workers, and how long they were waited for.
        ready: workers that there are.
        nodes: living nodes of the cluster.
        last_loss: what Ray said of the last worker that was lost; empty when none was.
    """
    lost = f"; the last that was lost: {last_loss}" if last_loss else ""
    found = f"{_asked(config)} could not be had for {config.patience:g} s: {ready} ready, {_had(nodes)}{lost}"
    return _refused(found)


def _room_of(config: RunConfig, resources: Mapping[str, float]) -> int:
    by_cpu = resources.get("CPU", 0) / config.threads
    by_gpu = resources.get("GPU", 0) / config.gpus if config.gpus else by_cpu
    return int(min(by_cpu, by_gpu) + 1e-9)  # ten times a tenth of a GPU is one


def _asked(config: RunConfig) -> str:
    return f"{config.min_workers} workers of {config.threads} CPUs and {config.gpus:g} GPUs each"


def _had(nodes: Nodes) -> str:
    living = [node["Resources"] for node in nodes if node["Alive"]]
    cpus, gpus = (sum(one.get(name, 0) for one in living) for name in ("CPU", "GPU"))
    return f"{cpus:g} CPUs and {gpus:g} GPUs on {len(living)} nodes"


def _refused(found: str) -> SettingError:
    fix = "lower --run.min-workers, --run.threads or --run.gpus, or add nodes; what is committed is kept"
    return SettingError("ray cluster", [Problem(place="resources", found=found, fix=fix)])
