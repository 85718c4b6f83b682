"""Checkpoints: written whole and flushed; no code in them is run; their contents do not change between versions."""

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from durability import recorded

from storage_schemas.cache import Cache
from storage_schemas.format.errors import CorruptionError
from trainer.run.checkpoint import read_checkpoint, steps_in_checkpoint
from trainer.run.train import train
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings
from trainer.settings.student import VitSettings


class Opened:
    """Something that acts when it is unpickled."""

    def __reduce__(self) -> tuple:
        """Raise in whoever unpickles it."""
        return exec, ("raise SystemExit('the file ran')",)


def whole(path: Path) -> bytes:
    torch.save({"state_dict": {"a": torch.arange(1000.0)}, "global_step": 3}, path)
    return path.read_bytes()


def test_tensors_and_numbers_come_back(tmp_path: Path) -> None:
    whole(tmp_path / "last.ckpt")
    read = read_checkpoint(tmp_path / "last.ckpt")
    assert read["global_step"] == 3
    assert torch.equal(read["state_dict"]["a"], torch.arange(1000.0))


def refusal_of(path: Path) -> str:
    with pytest.raises(CorruptionError) as refusal:
        read_checkpoint(path)
    return str(refusal.value)


def test_nothing_in_a_checkpoint_runs(tmp_path: Path) -> None:
    torch.save({"global_step": 3, "state_dict": {}, "hyper": Opened()}, tmp_path / "new.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"global_step": Opened()}, protocol=2))
    for name in ("new.ckpt", "old.ckpt"):
        assert refusal_of(tmp_path / name).startswith(
            f"checkpoint is damaged:\n  {tmp_path / name}: is not whole, or holds more than tensors and numbers ("
        )


@pytest.mark.parametrize("left", [0, 10, 500, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_is_refused(left: float, tmp_path: Path) -> None:
    body = whole(tmp_path / "last.ckpt")
    (tmp_path / "last.ckpt").write_bytes(body[: left if isinstance(left, int) else int(left * len(body))])
    assert "; no code in it was run (restore it from a copy, or delete the run's folder" in refusal_of(
        tmp_path / "last.ckpt"
    )


@pytest.mark.parametrize(
    "contents",
    [
        [1, 2],
        {},
        {"global_step": 3},
        {"global_step": "3", "state_dict": {}},
        {"global_step": -1, "state_dict": {}},
        {"global_step": 2.5, "state_dict": {}},
        {"global_step": True, "state_dict": {}},
        {"global_step": 3, "state_dict": []},
        {"global_step": 3, "state_dict": {"a": 1}},
    ],
)
def test_a_file_of_torch_that_is_no_checkpoint_is_refused(tmp_path: Path, contents: object) -> None:
    torch.save(contents, tmp_path / "last.ckpt")
    assert "is not whole, or holds more than tensors and numbers" in refusal_of(tmp_path / "last.ckpt")


def test_a_text_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"hello")
    assert "is not whole, or holds more than tensors and numbers" in refusal_of(tmp_path / "last.ckpt")


def test_a_folder_without_a_checkpoint_has_no_steps_behind_it(tmp_path: Path) -> None:
    assert steps_in_checkpoint(tmp_path / "last.ckpt") == 0
    whole(tmp_path / "last.ckpt")
    assert steps_in_checkpoint(tmp_path / "last.ckpt") == 3


def test_checkpoint_history_metrics_weights_and_card_are_durable_in_a_folder_two_deep(
    full_cache: Cache, tmp_path: Path, recipe_of: Callable[..., TrainRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = recorded(monkeypatch, tmp_path)
    run = train(recipe_of(steps=1), full_cache.store.uri, tmp_path / "runs" / "first", lambda _: None)
    disk.require_durable()
    files = (run.identity, run.checkpoint, run.history, run.metrics, run.weights, run.card)
    assert {f"runs/first/{file.name}" for file in files} <= set(disk.renamed())
    assert not list(run.path.glob("*.partial"))


BLOCK = [
    *("attn.proj.bias", "attn.proj.weight", "attn.qkv.bias", "attn.qkv.weight"),
    *("mlp.fc1.bias", "mlp.fc1.weight", "mlp.fc2.bias", "mlp.fc2.weight"),
    *("norm1.bias", "norm1.weight", "norm2.bias", "norm2.weight"),
]
HEAD = ["between.0.bias", "between.0.weight", "first.bias", "first.weight", "last.bias", "last.weight"]
MODEL = {
    *(f"student.backbone.blocks.N.{name}" for name in BLOCK),
    *(f"student.{name}" for name in ("mean", "std", "backbone.class_tokens", "backbone.registers")),
    *(f"student.backbone.{name}" for name in ("positions.grid", "patch_embed.proj.weight")),
    *(f"heads.{teacher}_spatial.adaptor.{name}" for teacher in ("any", "canvas", "fixed") for name in HEAD),
    *(f"heads.{teacher}_summary.{name}" for teacher in ("any", "fixed") for name in HEAD),
}
"""Names of all tensors of a model, with N for the number of a block."""


def test_the_names_in_a_checkpoint_are_those_of_every_version(
    full_cache: Cache, tmp_path: Path, recipe_of: Callable[..., TrainRecipe]
) -> None:
    # another name, of a module without weights too, and a run that another version began could not be resumed, or
    # would end in other bytes
    vit = VitSettings(position_grid=8, registers=2, global_blocks=2)
    recipe = recipe_of(student="radio_test_vit", vit=vit, steps=1, average=AverageSettings(decay=0.9))
    run = train(recipe, full_cache.store.uri, tmp_path, lambda _: None)
    checkpoint = read_checkpoint(run.checkpoint)
    assert list(checkpoint) == [
        *("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks"),
        *("optimizer_states", "lr_schedulers"),
    ]
    weights = checkpoint["state_dict"]
    names = {re.sub(r"blocks\.\d+\.", "blocks.N.", name) for name in weights}
    assert names == {f"{model}.{name}" for model in ("model", "average") for name in MODEL}
    modules = {name.partition(".")[0] for name in weights._metadata}
    assert modules == {"", "model", "maps", "average"}
    sets, teachers = ("high-64", "low-32", "low-48"), ("any", "canvas", "fixed")
    maps = {f"maps.maps.{view_set}/{teacher}" for view_set in sets for teacher in teachers}
    maps |= {"maps.maps", "maps.own", *(f"maps.own.{view_set}" for view_set in sets)}
    assert {name for name in weights._metadata if re.fullmatch(r"maps\.\w+(\.[^.]+)?", name)} == maps
    state = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert state == [{"step": 1}]


@pytest.fixture(scope="module")
def stopped(full_cache: Cache, tmp_path_factory: pytest.TempPathFactory, recipe_of: Callable[..., TrainRecipe]) -> Path:
    """The folder of a finished run of one step."""
    folder = tmp_path_factory.mktemp("run")
    recipe = recipe_of(steps=1, average=AverageSettings(decay=0.9))
    train(recipe, full_cache.store.uri, folder, lambda _: None)
    return folder


def without_scheduler(checkpoint: dict[str, Any]) -> None:
    checkpoint["lr_schedulers"] = []


def without_weight(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"].pop(next(iter(checkpoint["state_dict"])))


def with_weight(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"]["model.odd"] = torch.zeros(2)


def wide_weight(checkpoint: dict[str, Any]) -> None:
    name, weight = next((name, weight) for name, weight in checkpoint["state_dict"].items() if weight.ndim == 2)
    checkpoint["state_dict"][name] = torch.zeros(weight.shape[0], weight.shape[1] + 1)


def without_states(checkpoint: dict[str, Any]) -> None:
    checkpoint["optimizer_states"] = {}


def wide_moment(checkpoint: dict[str, Any]) -> None:
    state = next(iter(checkpoint["optimizer_states"][0]["state"].values()))
    state["exp_avg"] = torch.zeros(3, 3, 3)


def odd_parameter(checkpoint: dict[str, Any]) -> None:
    checkpoint["optimizer_states"][0]["param_groups"][0]["params"].append(10**9)


def repeated_parameter(checkpoint: dict[str, Any]) -> None:
    params = checkpoint["optimizer_states"][0]["param_groups"][0]["params"]
    params.append(params[0])


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (without_weight, ": is missing"),
        (with_weight, "model.odd: is no tensor of this run"),
        (wide_weight, "has the shape"),
        (without_states, "optimiser or schedule: is malformed (ValueError"),
        (without_scheduler, "optimiser or schedule: is malformed (ValueError"),
        (wide_moment, "has the shape (3, 3, 3), expected"),
        (odd_parameter, "optimiser or schedule: is malformed (KeyError"),
        (repeated_parameter, "names a parameter twice"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_checkpoint_of_other_tensors_is_refused_by_name(
    spoil: Callable[[dict[str, Any]], None],
    found: str,
    stopped: Path,
    full_cache: Cache,
    tmp_path: Path,
    recipe_of: Callable[..., TrainRecipe],
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    run = RunFolder(path=folder)
    run.card.unlink()  # as it was before the run ended
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    spoil(checkpoint)
    torch.save(checkpoint, run.checkpoint)
    before = run.checkpoint.read_bytes()
    with pytest.raises(CorruptionError) as refusal:
        train(recipe_of(steps=1, average=AverageSettings(decay=0.9)), full_cache.store.uri, folder, lambda _: None)
    assert found in str(refusal.value)
    assert "restore it from a copy, or delete the run's folder" in str(refusal.value)
    assert run.checkpoint.read_bytes() == before
