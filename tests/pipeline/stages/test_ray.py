"""Ray: the same workers in other processes write the same bytes and give the same errors, as many as fit."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import ray
from image_forms import write_tar
from meeting import Clumsy, Meeting
from ray.cluster_utils import Cluster
from stage_runs import LOCAL, StageRun, contents, own, run_stages, write_colours

from pipeline.__main__ import main
from pipeline.config import Recipe, RunConfig, ViewsConfig
from pipeline.export.options import ExportOptions
from pipeline.export.stage import export_cache, plan_export
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.views.stage import make_views
from pipeline.workers import ray_pool
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ray_group import ray_group
from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, SettingError
from storage_schemas.objects.store import Store

RECIPE = Recipe(
    name="over ray",
    views=ViewsConfig(low=(128,), high=(256,), high_share=0.3, heldout=0.2, tokens_per_shard=600, canvas_tokens=24),
    teachers=(own("teachers.quarter_mean:QuarterMeanFixed"),),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray that outlives each stage, as a cluster does: three CPUs, whose workers find the modules here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        sizes = {"num_cpus": 3, "include_dashboard": False, "object_store_memory": 128 * 2**20}
        nodes = Cluster(initialize_head=True, head_node_args=sizes)
        yield nodes.address
        nodes.shutdown()


@pytest.fixture
def on_cluster(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stages find the cluster by RAY_ADDRESS, as users do."""
    monkeypatch.setenv("RAY_ADDRESS", cluster)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """The stages in this process."""
    root = tmp_path_factory.mktemp("local")
    return run_stages(RECIPE, write_colours(root / "images", 30), root / "cache")


def over_ray(workers: int) -> RunConfig:
    """Settings for so many workers on Ray."""
    return RunConfig(executor="ray", workers=workers)


@pytest.mark.usefixtures("on_cluster")
@pytest.mark.parametrize(
    "workers", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_workers_on_a_cluster_write_the_bytes_that_one_process_writes(
    workers: int, undisturbed: StageRun, tmp_path: Path
) -> None:
    run = run_stages(RECIPE, undisturbed.data, tmp_path / "cache", over_ray(workers))
    assert contents(run.where) == contents(undisturbed.where)


@pytest.mark.usefixtures("on_cluster")
def test_an_export_over_ray_has_the_bytes_of_one_in_this_process(undisturbed: StageRun, tmp_path: Path) -> None:
    chosen = ExportOptions(cache=str(undisturbed.where), split="train", encoding="int8")
    for name, run in (("local", LOCAL), ("ray", over_ray(2))):
        target = Cache(store=Store(uri=str(tmp_path / name)))
        export_cache(plan_export(undisturbed.cache, target, chosen), run, str)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.usefixtures("on_cluster")
def test_latents_have_the_same_bytes_from_any_number_of_workers(undisturbed: StageRun, tmp_path: Path) -> None:
    teacher = own("teachers.quarter_mean:QuarterMean", encoding="pca8", fidelity=100.0, compression="zstd", batch=4)
    recipe = replace(RECIPE, teachers=(teacher,))
    runs = {"one": LOCAL, "two": over_ray(2), "three": over_ray(3)}
    made = {name: run_stages(recipe, undisturbed.data, tmp_path / name, run) for name, run in runs.items()}
    assert contents(made["two"].where) == contents(made["one"].where)
    assert contents(made["three"].where) == contents(made["one"].where)


@pytest.mark.usefixtures("on_cluster")
def test_two_workers_cut_tars_and_leave_copies_out_as_one_process_does(undisturbed: StageRun, tmp_path: Path) -> None:
    assert undisturbed.data is not None
    files = sorted(undisturbed.data.iterdir())
    for number in range(3):
        write_tar(tmp_path / f"tars/{number}.tar", {path.name: path.read_bytes() for path in files[number::3]})
    write_tar(tmp_path / "tars/copies.tar", {f"copy of {path.name}": path.read_bytes() for path in files[:9]})
    recipe = replace(RECIPE, views=replace(RECIPE.views, duplicates="drop"))
    lines: list[str] = []
    for where, run in (("one", LOCAL), ("two", over_ray(2))):
        make_views(Cache(store=Store(uri=f"{tmp_path}/{where}")), recipe, [], f"{tmp_path}/tars", run, lines.append)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert next(line for line in lines if "left out" in line).startswith("views: 9 copies left out (copy of 000.png")


@pytest.mark.usefixtures("on_cluster")
def test_a_run_of_two_workers_ends_early_over_rejected_images_and_goes_on(
    undisturbed: StageRun, tmp_path: Path
) -> None:
    assert undisturbed.data is not None
    shutil.copytree(undisturbed.data, tmp_path / "images")
    for number in range(0, 30, 2):
        (tmp_path / f"images/{number:03d}.png").write_bytes(b"")
    data, cache = str(tmp_path / "images"), Cache(store=Store(uri=f"{tmp_path}/cache"))
    with pytest.raises(SettingError, match=r"The run stopped early: at most 0\.01 of all"):
        make_views(cache, RECIPE, [], data, replace(over_ray(2), max_rejected=0.01), str)
    make_views(cache, RECIPE, [], data, replace(over_ray(2), max_rejected=0.5), str)
    undisturbed_cache = Cache(store=Store(uri=f"{tmp_path}/undisturbed"))
    make_views(undisturbed_cache, RECIPE, [], data, replace(LOCAL, max_rejected=0.5), str)
    assert contents(tmp_path / "cache") == contents(tmp_path / "undisturbed")


def on_its_own(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command on a Ray of its own, in a new process: a process that started such a Ray finds no other Ray."""
    script = "import os, sys; from pipeline.__main__ import main; os._exit(main(sys.argv[1:]))"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, env=environment)


def test_one_worker_on_a_ray_of_its_own_writes_the_bytes_that_one_process_writes(tmp_path: Path) -> None:
    images = write_colours(tmp_path / "images", 12)
    command = ["views", "--data", str(images), "--views.draws", "2"]
    assert main([*command, "--cache", str(tmp_path / "local"), "--run.executor", "local"]) == 0
    command += ["--run.gpus", "1"]  # ignored when views are cut; this Ray has no GPU
    done = on_its_own([*command, "--cache", str(tmp_path / "ray"), "--run.workers", "1"])
    errors = [line for line in done.stderr.splitlines() if not line.endswith(" s left")]  # progress of a slow run
    assert (done.returncode, errors) == (0, [])
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
def test_an_error_in_a_teacher_of_ones_own_is_one_message_and_is_not_tried_again(
    undisturbed: StageRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refusals = []
    for run in (LOCAL, over_ray(1)):
        with pytest.raises(SettingError) as caught:
            extract("Failing", undisturbed.data, tmp_path, run)
        refusals.append(str(caught.value))
    assert refusals[0].startswith("teacher failing cannot be used:\n  ")
    assert re.search(r"/odd_teachers\.py:\d+, in features: Failing\.OddError: an error at 128 px \(mend", refusals[0])
    assert refusals[1] == refusals[0]
    assert "worker was lost" not in capfd.readouterr().err


@pytest.mark.usefixtures("on_cluster")
def test_an_error_that_is_not_a_message_ends_the_run_at_once_with_its_traceback(tmp_path: Path) -> None:
    mark = tmp_path / "attempts"
    with open_pool(Clumsy, RunConfig(), tasks=1) as pool, pytest.raises(ZeroDivisionError) as caught:
        list(pool.run(Clumsy.fail, [mark]))
    assert "a fault in a worker" in str(caught.value)
    assert "in fail" in str(caught.value)
    assert mark.read_text() == "."


def free_cpus() -> float:
    """CPUs of the cluster that no worker uses."""
    return ray.available_resources().get("CPU", 0)


def becomes(value: Callable[[], float], expected: float) -> bool:
    """Wait for a value, for half a minute."""
    until = time.monotonic() + 30
    while value() != expected and time.monotonic() < until:
        time.sleep(0.1)
    return value() == expected


@pytest.mark.usefixtures("on_cluster")
def test_workers_are_as_many_as_tasks_and_capacity_allow_and_end_when_no_task_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "IDLE_SECONDS", 0.0)
    with open_pool(Meeting, RunConfig(), tasks=5) as pool:
        [(_, alone)] = pool.run(Meeting.meet, [(tmp_path, 1, "")])
        one_taken = becomes(free_cpus, 2)
        freed: list[bool] = []

        def dismiss() -> None:
            freed.append(becomes(free_cpus, 2))
            (tmp_path / "go").touch()

        results = pool.run(Meeting.meet, [(tmp_path, 3, "go"), (tmp_path, 3, ""), (tmp_path, 3, "")])
        workers = {next(results)[1] for _ in range(2)}
        watch = threading.Thread(target=dismiss)
        watch.start()
        [(last, worker)] = results
        watch.join()
    assert one_taken, "one task, one worker"
    assert (last, freed) == (0, [True]), "the others were ended while the last one worked"
    assert alone in workers | {worker}, "a worker is kept from run to run"
    assert len(workers | {worker}) == 3


@pytest.mark.slow
def test_workers_that_do_not_fit_on_this_machine_are_refused_at_once(tmp_path: Path) -> None:
    images = write_colours(tmp_path / "images", 3)
    done = on_its_own(["views", "--data", str(images), "--cache", str(tmp_path / "cache"), "--run.threads", "300"])
    assert (done.returncode, done.stderr) == (
        2,
        "error: ray cluster cannot be used:\n  resources: 1 workers with 300 CPUs and 0 GPUs each do not fit on "
        f"{os.cpu_count()} CPUs and 0 GPUs on 1 nodes "
        "(lower --run.min-workers, --run.threads or --run.gpus, or add nodes; what is committed is kept)\n",
    )


@pytest.mark.usefixtures("on_cluster")
@pytest.mark.parametrize(
    ("run", "found"),
    [
        (RunConfig(threads=4, patience=0), "with 4 CPUs and 0 GPUs each were not available within 0 s: 0 ready"),
        (RunConfig(gpus=0.5, patience=1), "with 1 CPUs and 0.5 GPUs each were not available within 1 s: 0 ready"),
    ],
)
def test_workers_that_do_not_fit_on_a_cluster_in_time_are_refused(run: RunConfig, found: str) -> None:
    with pytest.raises(SettingError) as caught, open_pool(Meeting, run, tasks=9) as pool:
        list(pool.run(Meeting.meet, [None] * 9))
    assert str(caught.value) == (
        f"ray cluster cannot be used:\n  resources: 1 workers {found}, 3 CPUs and 0 GPUs on 1 nodes "
        "(lower --run.min-workers, --run.threads or --run.gpus, or add nodes; what is committed is kept)"
    )


@pytest.mark.usefixtures("on_cluster")
def test_a_worker_that_cannot_be_made_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("class Worker:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    factory = import_module("only_here").Worker
    (tmp_path / "only_here.py").unlink()
    with pytest.raises(SettingError) as caught, open_pool(factory, RunConfig(), tasks=1) as pool:
        list(pool.run(Meeting.meet, [None]))
    assert str(caught.value) == (
        "worker cannot be used:\n  ray: cannot start: ModuleNotFoundError: No module named 'only_here' "
        "(install the same Stillhouse, and your own modules, on every node; docs/cluster.md)"
    )


@pytest.mark.usefixtures("on_cluster")
def test_a_group_works_at_once_and_ends_in_one_message_when_a_worker_is_lost(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    with ray_group(Meeting, RunConfig(workers=2, min_workers=2)) as group:
        assert len(set(group.run(Meeting.meet, [(tmp_path, 2, "go")] * 2))) == len(group.addresses) == 2
        group.run(Meeting.meet, [(tmp_path, 2, "go")])  # the first alone
        with pytest.raises(SettingError, match=r"ray cluster cannot be used:\n  worker 2 of 2 on .*: was lost: "):
            group.run(Meeting.end, [False, True])


@pytest.mark.usefixtures("on_cluster")
def test_a_group_that_does_not_fit_in_time_is_refused() -> None:
    with (
        pytest.raises(SettingError) as refusal,
        ray_group(Meeting, RunConfig(workers=9, min_workers=9, patience=0.5)),
    ):
        pass
    found = "9 workers with 1 CPUs and 0 GPUs each were not available within 0.5 s: 0 ready, 3 CPUs"
    assert found in str(refusal.value)
