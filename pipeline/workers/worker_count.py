"""How many workers a run asks Ray for: what its settings say, and how many fit on the cluster's nodes."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.config import RunConfig
from storage_schemas.format.errors import Problem, SettingError

Nodes = Iterable[Mapping[str, Any]]
"""Nodes as `ray.nodes()` describes them: `Alive`, and `Resources` by name."""


CLUSTER_WORKERS = 256
"""Workers that work is divided for on a cluster, where `RunConfig.workers` does not say how many there are."""


def capacity(config: RunConfig, nodes: Nodes) -> int:
    """Return how many workers fit on the living nodes. All CPUs and GPUs of a worker are on one node."""
    return sum(_node_capacity(config, node["Resources"]) for node in nodes if node["Alive"])


def wanted_workers(config: RunConfig, nodes: Nodes, tasks: int) -> int:
    """Return how many workers to ask Ray for.

    Where `config.workers` is set, so many are asked for even if they do not fit yet: an autoscaling cluster adds nodes
    for workers that wait.

    Args:
        config: fewest and most workers, and the CPUs and GPUs of each.
        nodes: of the cluster.
        tasks: that are not done; there are never more workers than tasks.
    """
    return min(config.workers or max(capacity(config, nodes), config.min_workers), tasks)


def usable_cores() -> int:
    """Return on how many cores this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def expected_workers(config: RunConfig) -> int:
    """Return for how many workers work should be divided, before a cluster is asked how many fit on it."""
    if config.executor == "local":
        return 1
    if not config.workers and os.environ.get("RAY_ADDRESS"):
        return CLUSTER_WORKERS
    return config.workers or max((os.cpu_count() or 1) // config.threads, 1)


def require_capacity(config: RunConfig, nodes: Nodes, tasks: int) -> None:
    """Refuse nodes on which the fewest workers do not fit, or a worker for each task where there are fewer tasks.

    Raises:
        SettingError: with what the workers need and what the nodes have.
    """
    nodes = list(nodes)
    if capacity(config, nodes) < min(config.min_workers, tasks):
        raise _refused(f"{_needed(config)} do not fit on {_resources(nodes)}")


def too_few_workers(config: RunConfig, ready: int, nodes: Nodes, last_loss: str) -> SettingError:
    """Return the error that ends a run after it waited `config.patience` seconds for its fewest workers.

    Args:
        config: fewest workers, and how long the run waited for them.
        ready: workers that are ready.
        nodes: living nodes of the cluster.
        last_loss: Ray's message about the last worker that was lost; empty when none was.
    """
    lost = f"; last worker lost: {last_loss}" if last_loss else ""
    found = f"{_needed(config)} were not available within {config.patience:g} s: {ready} ready, {_resources(nodes)}"
    return _refused(found + lost)


def _node_capacity(config: RunConfig, resources: Mapping[str, float]) -> int:
    by_cpu = resources.get("CPU", 0) / config.threads
    by_gpu = resources.get("GPU", 0) / config.gpus if config.gpus else by_cpu
    return int(min(by_cpu, by_gpu) + 1e-9)  # 7 / 0.14 comes out just below 50


def _needed(config: RunConfig) -> str:
    return f"{config.min_workers} workers with {config.threads} CPUs and {config.gpus:g} GPUs each"


def _resources(nodes: Nodes) -> str:
    living = [node["Resources"] for node in nodes if node["Alive"]]
    cpus, gpus = (sum(resources.get(name, 0) for resources in living) for name in ("CPU", "GPU"))
    return f"{cpus:g} CPUs and {gpus:g} GPUs on {len(living)} nodes"


def _refused(found: str) -> SettingError:
    fix = "lower --run.min-workers, --run.threads or --run.gpus, or add nodes; what is committed is kept"
    return SettingError("ray cluster", [Problem(place="resources", found=found, fix=fix)])
