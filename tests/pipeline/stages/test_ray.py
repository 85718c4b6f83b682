"""Ray: the same workers in other processes, the same bytes, the same refusals, whoever is lost on the way."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import pytest
import ray
from image_forms import write_tar
from ray.cluster_utils import Cluster
from stage_runs import LOCAL, StageRun, contents, own, run_stages, write_colours

from pipeline.__main__ import main
from pipeline.config import Recipe, RunConfig, ViewsConfig
from pipeline.pools import open_pool
from pipeline.stage_extract import extract_teacher, plan_extraction
from pipeline.stage_views import make_views
from storage_schemas.cache import Cache
from storage_schemas.errors import ContractError, SettingError
from storage_schemas.store import Store

RECIPE = Recipe(
    name="over ray",
    views=ViewsConfig(low=(128,), high=(256,), high_share=0.3, heldout=0.2, tokens_per_shard=600, canvas_tokens=24),
    teachers=(own("teachers.quarter_mean:QuarterMeanFixed"),),
)


@final
@dataclass(frozen=True, kw_only=True)
class OwnCluster:
    """A Ray that outlives each stage, as a cluster does."""

    address: str
    forwards: Path
    """Where the mortal teacher counts its forwards."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnCluster]:
    """Two CPUs, whose workers find the modules here."""
    forwards = tmp_path_factory.mktemp("forwards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.setenv("MORTAL_COUNTS", str(forwards))
        sizes = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 128 * 2**20}
        nodes = Cluster(initialize_head=True, head_node_args=sizes)
        yield OwnCluster(address=nodes.address, forwards=forwards)
        nodes.shutdown()


@pytest.fixture
def on_cluster(cluster: OwnCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stages find the cluster as users do."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """The stages in this process."""
    root = tmp_path_factory.mktemp("local")
    return run_stages(RECIPE, write_colours(root / "images", 30), root / "cache")


def over_ray(workers: int) -> RunConfig:
    """So many workers under ray."""
    return RunConfig(executor="ray", workers=workers)


@pytest.mark.usefixtures("on_cluster")
def test_two_workers_on_a_cluster_write_the_bytes_that_one_process_writes(
    undisturbed: StageRun, tmp_path: Path
) -> None:
    run = run_stages(RECIPE, undisturbed.data, tmp_path / "cache", over_ray(2))
    assert contents(run.where) == contents(undisturbed.where)


@pytest.mark.usefixtures("on_cluster")
def test_two_workers_cut_tars_and_leave_copies_out_as_one_process_does(undisturbed: StageRun, tmp_path: Path) -> None:
    assert undisturbed.data is not None
    files = sorted(undisturbed.data.iterdir())
    for number in range(3):
        write_tar(tmp_path / f"tars/{number}.tar", {path.name: path.read_bytes() for path in files[number::3]})
    write_tar(tmp_path / "tars/copies.tar", {f"copy of {path.name}": path.read_bytes() for path in files[:9]})
    recipe = replace(RECIPE, views=replace(RECIPE.views, duplicates="drop"))
    said: list[str] = []
    for where, run in (("one", LOCAL), ("two", over_ray(2))):
        make_views(Cache(store=Store(uri=f"{tmp_path}/{where}")), recipe, [], f"{tmp_path}/tars", run, said.append)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert next(line for line in said if "left out" in line).startswith("views: 9 images left out (copy of 000.png")


@pytest.mark.usefixtures("on_cluster")
def test_a_run_of_two_workers_ends_early_over_rejected_images_and_goes_on(
    undisturbed: StageRun, tmp_path: Path
) -> None:
    assert undisturbed.data is not None
    shutil.copytree(undisturbed.data, tmp_path / "images")
    for number in range(0, 30, 2):
        (tmp_path / f"images/{number:03d}.png").write_bytes(b"")
    data, cache = str(tmp_path / "images"), Cache(store=Store(uri=f"{tmp_path}/cache"))
    with pytest.raises(SettingError, match="views were rejected before the run ended early"):
        make_views(cache, RECIPE, [], data, replace(over_ray(2), max_rejected=0.01), str)
    make_views(cache, RECIPE, [], data, replace(over_ray(2), max_rejected=0.5), str)
    undisturbed_cache = Cache(store=Store(uri=f"{tmp_path}/undisturbed"))
    make_views(undisturbed_cache, RECIPE, [], data, replace(LOCAL, max_rejected=0.5), str)
    assert contents(tmp_path / "cache") == contents(tmp_path / "undisturbed")


def test_one_worker_on_a_ray_of_its_own_writes_the_bytes_that_one_process_writes(tmp_path: Path) -> None:
    images = write_colours(tmp_path / "images", 12)
    command = ["views", "--data", str(images), "--views.draws", "2"]
    assert main([*command, "--cache", str(tmp_path / "local"), "--run.executor", "local"]) == 0
    # in a process of its own: one that has had a Ray of its own finds the workers of no other
    script = "import os, sys; from pipeline.__main__ import main; os._exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, *command, "--cache", str(tmp_path / "ray"), "--run.workers", "1"]
    command += ["--run.gpus", "1"]  # which cutting views has no use for, and this Ray has none of
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "views: cut 24, rejected 0, wrote " in done.stdout
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def extract(teacher: str, data: Path | None, where: Path, run: RunConfig) -> Path:
    """Cut low views in this process, and run a teacher of odd_teachers over them."""
    recipe = replace(RECIPE, views=replace(RECIPE.views, high=()), teachers=(own(f"odd_teachers:{teacher}", batch=4),))
    cache = Cache(store=Store(uri=str(where)))
    make_views(cache, recipe, [], str(data), LOCAL, str)
    extract_teacher(plan_extraction(cache, recipe, recipe.teachers[0]), run, str)
    return where


@pytest.mark.usefixtures("on_cluster")
def test_a_worker_that_is_killed_is_replaced_and_its_shard_done_again(
    undisturbed: StageRun, cluster: OwnCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"{number}").touch()  # here it has had its third forward, and lives
    monkeypatch.setenv("MORTAL_COUNTS", str(tmp_path))
    alive = extract("Mortal", undisturbed.data, tmp_path / "alive", LOCAL)
    mortal = extract("Mortal", undisturbed.data, tmp_path / "mortal", over_ray(1))
    processes = {path.name.partition("-")[2] for path in cluster.forwards.iterdir()}
    assert len(processes) == 2, "one was killed, another went on"
    assert contents(mortal) == contents(alive)


@pytest.mark.usefixtures("on_cluster")
def test_a_refusal_in_a_worker_arrives_as_it_was_raised(undisturbed: StageRun, tmp_path: Path) -> None:
    refusals = []
    for run in (LOCAL, over_ray(1)):
        with pytest.raises(ContractError) as caught:
            extract("NotANumber", undisturbed.data, tmp_path, run)
        refusals.append(str(caught.value))
    assert refusals[0].startswith("output of teacher 'not-a-number' breaks the storage contract:\n")
    assert refusals[1] == refusals[0]
    assert not ray.is_initialized()


@pytest.mark.usefixtures("on_cluster")
@pytest.mark.parametrize(
    ("run", "found"),
    [
        (RunConfig(workers=3), "3 workers of 1 CPUs and 0 GPUs each do not fit its 2 CPUs and 0 GPUs"),
        (RunConfig(workers=1, threads=4), "1 workers of 4 CPUs and 0 GPUs each do not fit its 2 CPUs and 0 GPUs"),
        (RunConfig(gpus=0.5), "1 workers of 1 CPUs and 0.5 GPUs each do not fit its 2 CPUs and 0 GPUs"),
    ],
)
def test_workers_that_the_cluster_has_no_room_for_are_refused(run: RunConfig, found: str) -> None:
    with pytest.raises(SettingError) as caught, open_pool(Doomed, run, tasks=9):
        pass
    assert str(caught.value) == (
        f"ray cluster cannot be used:\n  resources: {found} (lower --run.workers, --run.threads or --run.gpus)"
    )


@final
class Doomed:
    """A worker that is killed by every task."""

    def work(self, _: None) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.usefixtures("on_cluster")
def test_a_worker_that_is_lost_again_and_again_ends_the_run() -> None:
    with open_pool(Doomed, over_ray(1), tasks=1) as pool, pytest.raises(SettingError) as caught:
        list(pool.run("work", ["the task"]))
    assert str(caught.value).startswith("worker cannot be used:\n  'the task': work lost its worker 4 times: ")
