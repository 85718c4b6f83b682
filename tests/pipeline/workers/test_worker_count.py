"""How many workers are asked for, and when there are too few."""

import pytest

from pipeline.config import RunConfig
from pipeline.workers.worker_count import capacity, require_capacity, too_few_workers, wanted_workers
from storage_schemas.format.errors import SettingError


def node(cpus: float, gpus: float = 0.0, *, alive: bool = True) -> dict[str, object]:
    """A node as Ray describes it."""
    return {"Alive": alive, "Resources": {"CPU": cpus, "memory": 1e9} | ({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("run", "nodes", "workers"),
    [
        (RunConfig(), [node(3), node(5)], 8),
        (RunConfig(threads=2), [node(3), node(5)], 3),  # not 8 / 2: a worker's threads are on one node
        (RunConfig(threads=4), [node(3), node(3)], 0),
        (RunConfig(gpus=1), [node(8, 2), node(8), node(1, 4)], 3),
        (RunConfig(gpus=0.1), [node(64, 1)], 10),
        (RunConfig(gpus=0.14), [node(64, 7)], 50),  # 7 / 0.14 is rounded to just below 50
        (RunConfig(gpus=2), [node(64, 1), node(64, 1)], 0),
        (RunConfig(), [node(3), node(5, alive=False)], 3),
        (RunConfig(), [], 0),
    ],
)
def test_capacity_is_counted_node_by_node(run: RunConfig, nodes: list[dict[str, object]], workers: int) -> None:
    assert capacity(run, nodes) == workers


@pytest.mark.parametrize(
    ("run", "tasks", "wanted"),
    [
        (RunConfig(), 100, 4),
        (RunConfig(), 3, 3),
        (RunConfig(), 0, 0),
        (RunConfig(workers=2), 100, 2),
        (RunConfig(workers=9), 100, 9),  # an autoscaling cluster adds nodes for them
        (RunConfig(min_workers=6), 100, 6),
        (RunConfig(min_workers=6), 5, 5),
    ],
)
def test_as_many_are_asked_for_as_settings_capacity_and_tasks_allow(run: RunConfig, tasks: int, wanted: int) -> None:
    assert wanted_workers(run, [node(1), node(3)], tasks) == wanted


def test_fewer_tasks_than_the_fewest_workers_need_no_more_capacity() -> None:
    require_capacity(RunConfig(min_workers=6), [node(4)], tasks=4)
    with pytest.raises(SettingError) as caught:
        require_capacity(RunConfig(min_workers=6), [node(4)], tasks=5)
    assert str(caught.value) == (
        "ray cluster cannot be used:\n"
        "  resources: 6 workers with 1 CPUs and 0 GPUs each do not fit on 4 CPUs and 0 GPUs on 1 nodes "
        "(lower --run.min-workers, --run.threads or --run.gpus, or add nodes; what is committed is kept)"
    )


def test_the_refusal_to_wait_longer_says_what_was_lost() -> None:
    refusal = too_few_workers(RunConfig(min_workers=3, patience=60), 2, [node(2), node(9, alive=False)], "it died.")
    assert str(refusal) == (
        "ray cluster cannot be used:\n"
        "  resources: 3 workers with 1 CPUs and 0 GPUs each were not available within 60 s: 2 ready, "
        "2 CPUs and 0 GPUs on 1 nodes; last worker lost: it died. "
        "(lower --run.min-workers, --run.threads or --run.gpus, or add nodes; what is committed is kept)"
    )
