"""Several runs on one cache at once: one works, the others are refused, and the bytes are those of one run."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs_at_once import RECIPE, ROUGHER
from stage_runs import LOCAL, StageRun, contents, run_stages, write_colours

from pipeline.__main__ import main
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.leases.lease import VIEWS_LEASE, WHOLE_LEASE, leased, teacher_lease
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.errors import StorageError
from storage_schemas.objects.store import Store

HERE = Path(__file__).parent
AtOnce = Callable[..., list[dict[str, Any]]]
FIRST = replace(RECIPE, teachers=RECIPE.teachers[:1])
NAMES = [choice.name for choice in RECIPE.teachers]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images."""
    return write_colours(tmp_path_factory.mktemp("at-once") / "images", 12)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """One run of all teachers, with no other beside it."""
    return run_stages(RECIPE, data, tmp_path_factory.mktemp("alone") / "cache")


@pytest.fixture(scope="module")
def at_once(data: Path) -> Iterator[AtOnce]:
    """Start runs on a cache at the same time, and return how each ended: `at_once(cache, *works)`."""
    command = [sys.executable, str(HERE / "runs_at_once.py"), str(data)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:

        def run(cache: Path, *works: str) -> list[dict[str, Any]]:
            process.stdin.write(json.dumps([str(cache), *works]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


def check_refusals(runs: list[dict[str, Any]]) -> int:
    """Each run is done, or was refused in one message that names another of them. Return how many were refused."""
    refused = [run for run in runs if run["status"] != 0]
    numbers = {run["process"] for run in runs}
    for run in refused:
        who = re.fullmatch(r"error: cache \S+ is being written:\n  \S+: by process (\d+) on .*\n", run["messages"])
        assert who is not None, run["messages"]
        assert int(who[1]) in numbers - {run["process"]}
    assert len(refused) < len(runs), "one of them does the work"
    return len(refused)


def test_four_runs_that_begin_at_once_give_the_bytes_of_one(data: Path, tmp_path: Path, at_once: AtOnce) -> None:
    alone = run_stages(FIRST, data, tmp_path / "alone")
    assert check_refusals(at_once(tmp_path / "cache", *["all"] * 4)) > 0
    assert at_once(tmp_path / "cache", "all")[0]["status"] == 0
    assert contents(tmp_path / "cache") == contents(alone.where)
    assert not (tmp_path / "cache" / "leases").exists()


@pytest.fixture
def cut(data: Path, tmp_path: Path, alone: StageRun) -> Path:
    """A cache with all views and no features."""
    specs = [alone.spec(name) for name in NAMES]
    make_views(Cache(store=Store(uri=str(tmp_path / "cache"))), RECIPE, specs, str(data), LOCAL, str)
    return tmp_path / "cache"


def test_teachers_that_are_extracted_at_once_give_the_bytes_of_one_after_the_other(
    alone: StageRun, cut: Path, at_once: AtOnce
) -> None:
    assert [run["status"] for run in at_once(cut, *NAMES)] == [0] * len(NAMES)
    expected = {name: held for name, held in contents(alone.where).items() if "/stats/" not in name}
    assert contents(cut) == expected


def test_one_teacher_that_is_extracted_twice_at_once_has_one_frozen_map(
    data: Path, alone: StageRun, cut: Path, tmp_path: Path, at_once: AtOnce
) -> None:
    rough = run_stages(replace(ROUGHER, teachers=ROUGHER.teachers[:1]), data, tmp_path / "rough")
    name = NAMES[0]
    check_refusals(at_once(cut, name, "rougher", name, "rougher"))
    assert at_once(cut, name)[0]["status"] == 0
    group = f"features.zarr/teachers/{name}/"

    def features(where: Path) -> dict[str, str]:
        files = contents(where).items()
        return {name: sha256 for name, sha256 in files if name.startswith(group) and "/stats/" not in name}

    assert features(rough.where) != features(alone.where)
    assert features(cut) in (features(rough.where), features(alone.where))


def test_a_worker_of_a_dead_driver_writes_nothing_once_another_run_has_begun(cut: Path) -> None:
    cache, choice = Cache(store=Store(uri=str(cut))), RECIPE.teachers[0]
    extraction = plan_extraction(cache, RECIPE, choice)
    with leased(cache, teacher_lease(choice.name), "the dead driver") as lease:
        worker = replace(extraction, cache=lease.cache).worker(LOCAL)()
    extract_teacher(extraction, LOCAL, str)
    before, manifest = contents(cut), cache.teacher_manifest(choice.name)
    assert manifest is not None
    running = worker.identify(None)
    storages = {choice.name: choice.storage}
    task = extraction.task(
        next(iter(extraction.views.sets)), 0, {choice.name: manifest.digest}, running.computed_by, storages
    )
    with pytest.raises(StorageError, match=r"leases/teachers\.quarter-mean\.\w+\.claim: is gone: "):
        worker.extract(task)
    assert contents(cut) == before
    assert not list(cut.rglob("*.partial"))


def test_what_has_nothing_to_do_needs_no_lease(alone: StageRun) -> None:
    with leased(alone.cache, WHOLE_LEASE, "gc"):
        again = run_stages(RECIPE, alone.data, alone.where)
    assert all("nothing to do" in line for line in again.said)


@pytest.mark.parametrize(
    ("lease", "command", "refused"),
    [
        (VIEWS_LEASE, "gc --delete", True),
        (teacher_lease(NAMES[0]), "gc --delete", True),
        (teacher_lease(NAMES[0]), "gc", False),
        (WHOLE_LEASE, "verify --run.executor local", False),
        (WHOLE_LEASE, "inspect", False),
    ],
)
def test_nothing_is_deleted_while_a_run_writes_and_everything_can_be_read(
    alone: StageRun, capsys: pytest.CaptureFixture[str], lease: str, command: str, refused: bool
) -> None:
    name, *settings = command.split()
    before = contents(alone.where)
    with leased(alone.cache, lease, "the first"):
        assert main([name, "--cache", str(alone.where), *settings]) == 2 * refused
    printed = capsys.readouterr()
    who = f"{lease}: by process {os.getpid()} on " if refused else f"{lease} is being written by process {os.getpid()} "
    assert who in (printed.err if refused else printed.out) or name == "verify"
    assert contents(alone.where) == before


def test_what_a_killed_run_claimed_is_shown_as_ended_and_cleared(
    alone: StageRun, capsys: pytest.CaptureFixture[str]
) -> None:
    child = os.fork()
    if child == 0:
        with leased(alone.cache, VIEWS_LEASE, "views"):
            os._exit(0)
    os.waitpid(child, 0)
    place = str(alone.where)
    assert main(["inspect", "--cache", place, "--json"]) == 0
    [writer] = json.loads(capsys.readouterr().out)["writers"]
    assert (writer["lease"], writer["work"], writer["process"], writer["ended"]) == ("views", "views", child, True)
    assert main(["inspect", "--cache", place]) == 0
    assert capsys.readouterr().out.endswith("\nviews: views ended before it had finished; the next run continues it\n")
    [left] = [f"leases/{name}" for name in os.listdir(alone.where / "leases") if name.endswith(".claim")]
    assert main(["gc", "--cache", place]) == 0
    assert f"gc: {left}, of a run that has ended, can be deleted too\n" in capsys.readouterr().out
    assert main(["gc", "--cache", place, "--delete"]) == 0
    assert f"gc: {left}, of a run that has ended, deleted\n" in capsys.readouterr().out
    assert not (alone.where / "leases").exists()
