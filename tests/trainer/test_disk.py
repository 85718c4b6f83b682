"""A run whose disk is full or cannot be written ends in one message, leaves no half file, and resumes."""

import io
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.cache import Cache
from storage_schemas.format.errors import StorageError
from trainer.data.source import open_source
from trainer.run.checkpoint import steps_in_checkpoint
from trainer.run.checkpoint_file import CheckpointFile
from trainer.run.fit import fit
from trainer.run.train import train
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe

Recipes = Callable[..., TrainRecipe]
STEPS = 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


class Fill(Callback):
    """Fills the disk before a step, or after the last."""

    def __init__(self, filler: Path, step: int) -> None:
        self.filler, self.step = filler, step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.fill()

    def on_train_end(self, *_: Any) -> None:
        if self.step == STEPS:
            self.fill()

    def fill(self) -> None:
        with self.filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))


@pytest.fixture(scope="module")
def undisturbed(full_cache: Cache, tmp_path_factory: pytest.TempPathFactory, recipe_of: Recipes) -> RunFolder:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return train(recipe_of(steps=STEPS), full_cache.store.uri, folder, lambda _: None)


def fit_with(recipe: TrainRecipe, cache: Cache, run: RunFolder, *callbacks: Callback) -> None:
    fit(TrainingRun(recipe=recipe, source=open_source(cache), folder=run), lambda _: None, callbacks)


@pytest.mark.parametrize(
    ("step", "kept", "loggers"),
    [
        (1, 0, ("csv",)),
        (5, 4, ("csv",)),
        (STEPS, STEPS, ("csv",)),
        pytest.param(1, 0, ("csv", "tensorboard"), marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_gets_full_ends_a_run_in_one_message_and_with_room_it_resumes_to_the_same_bytes(
    full_cache: Cache,
    small_disk: Path,
    recipe_of: Recipes,
    undisturbed: RunFolder,
    step: int,
    kept: int,
    loggers: tuple[str, ...],
) -> None:
    recipe, run = recipe_of(steps=STEPS, running={"loggers": loggers}), RunFolder(path=small_disk / "run")
    with pytest.raises(StorageError) as refusal:
        fit_with(recipe, full_cache, run, Fill(small_disk / "filler", step))
    assert "No space left on device (run the same command again when this is fixed: it resumes)" in str(refusal.value)
    assert str(run.path) in str(refusal.value)
    assert steps_in_checkpoint(run.checkpoint) == kept
    assert not list(run.path.rglob("*.partial"))
    (small_disk / "filler").unlink()
    train(recipe, full_cache.store.uri, run.path, lambda _: None)
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()


def test_a_history_that_cannot_be_written_ends_a_run_in_one_message(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    run = RunFolder(path=tmp_path / "run")

    class Replace(Callback):
        def on_train_start(self, *_: Any) -> None:
            run.history.unlink()
            run.history.symlink_to("/dev/full")

    with pytest.raises(StorageError) as refusal:
        fit_with(recipe_of(steps=2), full_cache, run, Replace())
    assert str(refusal.value) == (
        f"storage failed:\n  {run.path}: No space left on device "
        "(run the same command again when this is fixed: it resumes)"
    )


def test_a_folder_of_runs_that_cannot_be_written_is_refused(
    full_cache: Cache, small_disk: Path, recipe_of: Recipes
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="cannot be written: Read-only file system"):
        train(recipe_of(steps=2), full_cache.store.uri, small_disk / "run", lambda _: None)
    assert not list(small_disk.iterdir())


def test_a_checkpoint_needs_no_folder_for_temporary_files_and_little_memory(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # in place of the old one, which is whole until the new one is
    weights = {"weight": torch.rand(1_500_000)}
    monkeypatch.setenv("TMPDIR", str(small_disk / "none"))
    for _ in range(2):
        CheckpointFile().save_checkpoint(weights, small_disk / "last.ckpt")
    saved = (small_disk / "last.ckpt").read_bytes()
    as_torch_writes_it = io.BytesIO()
    torch.save(weights, as_torch_writes_it)
    assert saved == as_torch_writes_it.getvalue()
    with pytest.raises(StorageError, match="No space left on device"):
        CheckpointFile().save_checkpoint({"weight": torch.rand(3_000_000)}, small_disk / "last.ckpt")
    assert (small_disk / "last.ckpt").read_bytes() == saved
    assert [path.name for path in small_disk.iterdir()] == ["last.ckpt"]


def test_what_a_killed_process_left_half_written_is_deleted_by_the_next_run(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    run = RunFolder(path=tmp_path / "run")
    run.path.mkdir()
    for name in ("last.partial", "last.ckpt.0123.partial", "metrics.json.4567.partial"):
        (run.path / name).write_bytes(b"half")
    train(recipe_of(steps=1), full_cache.store.uri, run.path, lambda _: None)
    assert not list(run.path.glob("*.partial"))
