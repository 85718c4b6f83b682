"""Only one process at a time trains in a folder; a lock ends with its process, however that ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storage_schemas.cache import Cache
from storage_schemas.format.errors import BusyError, IdentityError, StorageError
from storage_schemas.objects import file_lock
from storage_schemas.objects.file_lock import locked
from trainer.run.history import read_history
from trainer.run.train import train
from trainer.settings.config import TrainRecipe

Recipes = Callable[..., TrainRecipe]
HOLDER = """
import sys, time
from storage_schemas.objects.file_lock import locked
with locked(sys.argv[1], "train tiny"):
    print("locked", flush=True)
    time.sleep(600)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    return holder


def test_a_second_process_is_refused_with_the_name_of_the_first_and_changes_nothing(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    run, recipe = tmp_path / "run", recipe_of(steps=2)
    with hold(run / "run.lock") as holder:
        with pytest.raises(BusyError) as refusal:
            train(recipe, full_cache.store.uri, run, lambda _: None)
        assert f"{run / 'run.lock'}: by train tiny: process {holder.pid} on " in str(refusal.value)
        assert [path.name for path in run.iterdir()] == ["run.lock"]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # its file is left, its lock is not
        train(recipe, full_cache.store.uri, run, lambda _: None)
    assert [row["step"] for row in read_history(run / "history.csv") if row["loss"]] == ["1", "2"]
    assert not (run / "run.lock").exists()


def test_a_run_that_another_process_finishes_meanwhile_is_left_as_it_is(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = recipe_of(steps=2), tmp_path / "run"
    finished: list[dict[Path, int]] = []

    def built(*arguments: object) -> object:
        monkeypatch.undo()  # while this process builds its student, another one trains from start to end
        train(recipe, full_cache.store.uri, run, lambda _: None)
        finished.append({path: path.stat().st_mtime_ns for path in run.rglob("*")})
        return build_model(*arguments)

    from trainer.run import fit
    from trainer.run.fit import build_model

    monkeypatch.setattr(fit, "build_model", built)
    train(recipe, full_cache.store.uri, run, lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == finished[0]


def test_a_run_whose_folder_another_run_takes_meanwhile_is_refused(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = tmp_path / "run", recipe_of(steps=2, seed=1)
    from trainer.run import fit
    from trainer.run.fit import build_model

    def built(*arguments: object) -> object:
        monkeypatch.undo()  # while this process builds its student, another one trains with another seed
        train(other, full_cache.store.uri, run, lambda _: None)
        return build_model(*arguments)

    monkeypatch.setattr(fit, "build_model", built)
    with pytest.raises(IdentityError, match="seed"):
        train(recipe_of(steps=2), full_cache.store.uri, run, lambda _: None)


def test_of_many_that_lock_delete_and_lock_again_never_two_are_inside(tmp_path: Path) -> None:
    inside, most, refused = [0], [0], [0]

    def compete() -> None:
        for _ in range(200):
            try:
                with locked(tmp_path / "lock", "a test"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except BusyError:
                refused[0] += 1

    threads = [threading.Thread(target=compete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert refused[0] < 800


def test_a_lock_on_a_file_that_its_owner_has_deleted_since_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tries = tmp_path / "lock", list[int]()

    def lock(descriptor: int, _: str) -> None:
        tries.append(descriptor)
        if len(tries) == 1:
            path.unlink()  # as the owner does between opening and locking

    monkeypatch.setattr(file_lock, "_lock", lock)
    with locked(path, "a test"):
        assert len(tries) == 2
        assert path.exists()


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, _kind: int) -> None:
        raise OSError(file_lock.UNSUPPORTED[0], os.strerror(file_lock.UNSUPPORTED[0]))

    monkeypatch.setattr(file_lock.fcntl, "flock", flock)
    with pytest.raises(StorageError, match="has no file locks"), locked(tmp_path / "lock", "a test"):
        pass
