"""Actors and whole nodes are lost during a run, and others join: the bytes stay the same, without a second run."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

import pytest
from ray.cluster_utils import Cluster
from stage_runs import LOCAL, contents, own, write_colours

from pipeline.config import Recipe, RunConfig, ViewsConfig
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.views.stage import make_views
from pipeline.workers.open_pool import open_pool
from pipeline.workers.pool import Unfinished
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from storage_schemas.objects.store import Store

RECIPE = Recipe(
    name="mortal",
    views=ViewsConfig(low=(128,), high=(), heldout=0.2, tokens_per_shard=600, canvas_tokens=24),
    teachers=(own("odd_teachers:Mortal", batch=4),),
)
SIZES = {"num_cpus": 1, "object_store_memory": 128 * 2**20}
"""Size of a node: one worker fits."""


@final
@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A run in this process: any other must write its bytes."""

    data: Path
    where: Path
    observing: int
    """Forwards of calibration."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Four shards of three forwards each, but for the last."""
    root = tmp_path_factory.mktemp("alive")
    counts, data = root / "forwards", write_colours(root / "images", 30)
    counts.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORTAL_COUNTS", str(counts))
        extract(data, root / "cache", LOCAL)
    forwards = len(list(counts.iterdir()))
    return Undisturbed(data=data, where=root / "cache", observing=forwards - 10)


def extract(data: Path, where: Path, run: RunConfig) -> None:
    """Cut views in this process, and run the mortal teacher over them."""
    cache = Cache(store=Store(uri=str(where)))
    make_views(cache, RECIPE, [], str(data), LOCAL, str)
    extract_teacher(plan_extraction(cache, RECIPE, RECIPE.teachers[0]), run, str)


@contextmanager
def head(counts: Path, **settings: str) -> Iterator[Cluster]:
    """A head node, its address in RAY_ADDRESS, and the environment of its workers."""
    variables = {
        "MORTAL_COUNTS": str(counts),
        "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (variables | settings).items():
            patch.setenv(name, value)
        nodes = Cluster(initialize_head=True, head_node_args=SIZES | {"include_dashboard": False})
        patch.setenv("RAY_ADDRESS", nodes.address)
        try:
            yield nodes
        finally:
            nodes.shutdown()


def workers_of(counts: Path) -> list[str]:
    """The process of every forward, in their order."""
    made = sorted(counts.glob("*-*"), key=lambda path: int(path.name.partition("-")[0]))
    return [path.name.partition("-")[2] for path in made]


def until(holds: Callable[[], bool]) -> None:
    """Wait, for two minutes at most."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_three_killed_workers_are_replaced_and_their_shards_repeated(undisturbed: Undisturbed, tmp_path: Path) -> None:
    counts = tmp_path / "forwards"
    counts.mkdir()
    # of shards of 3, 3, 3 and 1 forwards: the first and the second at their second, the third at its last
    moments = [undisturbed.observing + number for number in (1, 6, 12)]
    with head(counts, MORTAL_DIES=" ".join(map(str, moments))):
        extract(undisturbed.data, tmp_path / "cache", RunConfig())
    assert len(workers_of(counts)) == undisturbed.observing + 17
    assert len(set(workers_of(counts))) == 4
    assert contents(tmp_path / "cache") == contents(undisturbed.where)


@pytest.mark.slow
def test_a_node_that_is_killed_and_another_that_joins_change_no_byte(undisturbed: Undisturbed, tmp_path: Path) -> None:
    counts = tmp_path / "forwards"
    counts.mkdir()
    waits = undisturbed.observing + 2
    with head(counts, MORTAL_WAITS=str(waits)) as nodes, ThreadPoolExecutor() as driver:
        lost = nodes.add_node(**SIZES)
        run = driver.submit(extract, undisturbed.data, tmp_path / "cache", RunConfig())
        until(lambda: len(set(workers_of(counts)[waits:])) == 2)  # one on each node, in the middle of a shard
        before = set(workers_of(counts))
        nodes.remove_node(lost, allow_graceful=False)
        nodes.add_node(**SIZES)
        until(lambda: len(set(workers_of(counts))) == 3)
        (counts / "go").touch()
        run.result()
    assert len(before) == 2
    assert len(set(workers_of(counts)) - before) == 1, "the node that joined took its part"
    assert contents(tmp_path / "cache") == contents(undisturbed.where)


@final
class Doomed:
    """A worker that is killed by every task."""

    def work(self, _: None) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_task_that_loses_one_worker_after_another_ends_the_run(tmp_path: Path) -> None:
    with head(tmp_path), open_pool(Doomed, RunConfig(), tasks=1) as pool, pytest.raises(SettingError) as caught:
        list(pool.run(Doomed.work, ["the task"]))
    assert str(caught.value).startswith("worker cannot be used:\n  'the task': work lost its worker 4 times: ")


@final
class Interrupted:
    """A worker that is killed once: while it finishes a task, and is at work on the next."""

    def work(self, mark: str) -> Unfinished:
        """Leave the rest for later."""
        return Unfinished(partial(self._finish, Path(mark)))

    def _finish(self, mark: Path) -> str:
        if mark.name == "1" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return mark.name


@pytest.mark.slow
def test_a_task_whose_worker_is_killed_while_finishing_is_repeated(tmp_path: Path) -> None:
    tasks = [str(tmp_path / str(number)) for number in range(5)]
    with head(tmp_path), open_pool(Interrupted, RunConfig(), tasks=5) as pool:
        assert sorted(pool.run(Interrupted.work, tasks)) == [(number, str(number)) for number in range(5)]
    assert (tmp_path / "1").exists()
