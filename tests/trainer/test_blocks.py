"""Features of blocks are what the backbone computes on its way; their normaliser is fitted on held-out views."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import trainer
import trainer.normaliser
import trainer.run_folder
import trainer.student.blocks
from storage_schemas.cache import Cache
from storage_schemas.format.errors import CorruptionError, IdentityError, MissingError, SettingError
from trainer.__main__ import main
from trainer.data.batch import unit_pixels
from trainer.data.source import open_source
from trainer.data.view_dataset import ViewDataset
from trainer.export import ExportedStudent
from trainer.normaliser import BlockSums, fit_normaliser
from trainer.portable.image_size import ImageSize
from trainer.portable.trial import with_trial_weights
from trainer.portable.write import write_portable
from trainer.run.train import train
from trainer.settings.config import TrainRecipe
from trainer.settings.student import VitSettings
from trainer.student.student import Student

ADDED = VitSettings(position_grid=8, registers=2, global_blocks=2, windows=(2,))


@pytest.fixture(scope="module")
def folders(
    full_cache: Cache, tmp_path_factory: pytest.TempPathFactory, recipe_of: Callable[..., TrainRecipe]
) -> dict[str, Path]:
    """Finished runs by student."""
    runs = tmp_path_factory.mktemp("runs")
    recipes = {
        "radio_test_vit": recipe_of(steps=1, student="radio_test_vit", vit=ADDED),
        "test_vit": recipe_of(steps=1, student="test_vit", image_size=64),
    }
    return {
        name: train(recipe, full_cache.store.uri, runs / name, lambda _: None).path for name, recipe in recipes.items()
    }


def trial(folder: Path, policy: str = "apart") -> ExportedStudent:
    student = with_trial_weights(trainer.load(folder))
    if hasattr(student.student.backbone, "settings"):
        student.student.backbone.settings = replace(ADDED, window_tokens=policy)
    return student


def block_by_block(student: ExportedStudent, pixels: Tensor) -> list[Tensor]:
    """The patches after each block with global attention, computed with no code of the module that is tested."""
    backbone = student.student.backbone
    normal = (pixels - student.student.mean) / student.student.std
    patches = backbone.patch_embed(normal)
    rows, columns = pixels.shape[2] // 16, pixels.shape[3] // 16
    patches = patches + backbone.positions(rows, columns, None)
    prefix = torch.cat([backbone.class_tokens, backbone.registers]).expand(len(pixels), -1, -1)
    tokens, maps = torch.cat([prefix, patches.flatten(1, 2)], dim=1), []
    for block in backbone.blocks:
        tokens = block(tokens)
        maps.append(tokens[:, prefix.shape[1] :].unflatten(1, (rows, columns)))
    return maps


@torch.no_grad()
def test_blocks_are_those_that_the_backbone_computes_and_the_output_is_the_same(folders: dict[str, Path]) -> None:
    student, pixels = trial(folders["radio_test_vit"]), torch.rand(2, 3, 64, 96)
    expected, output = block_by_block(student, pixels), student(pixels)
    count = len(expected)
    both, maps = student.with_blocks(pixels, [0, "2", -1, "0-2", range(1, count)])
    assert torch.equal(both.student.spatial, output.student.spatial)
    assert torch.allclose(maps[0], expected[0], atol=1e-5)
    assert torch.allclose(maps[1], expected[2], atol=1e-5)
    assert torch.allclose(maps[2], expected[-1], atol=1e-5)
    assert torch.allclose(maps[3], (expected[0] + expected[1] + expected[2]) / 3, atol=1e-5)
    assert torch.allclose(maps[4], sum(expected[1:], torch.zeros(())) / (count - 1), atol=1e-5)
    assert not student.student.backbone.blocks[0]._forward_hooks


@torch.no_grad()
def test_blocks_of_a_timm_backbone_are_those_of_its_own_method(folders: dict[str, Path]) -> None:
    student, pixels = trial(folders["test_vit"]), torch.rand(2, 3, 64, 96)
    normal = (pixels - student.student.mean) / student.student.std
    own = student.student.backbone.forward_intermediates(normal, indices=[0, 3], norm=False, intermediates_only=True)
    _, maps = student.with_blocks(pixels, [0, 3])
    assert all(
        torch.allclose(found, map_.permute(0, 2, 3, 1), atol=1e-5) for found, map_ in zip(maps, own, strict=True)
    )


@pytest.mark.parametrize("policy", ["apart", "copied"])
@torch.no_grad()
def test_blocks_in_windows_are_in_their_places(folders: dict[str, Path], policy: str) -> None:
    student = trial(folders["radio_test_vit"], policy)
    one = torch.rand(1, 3, 32, 32)
    count = len(student.student.backbone.blocks)
    assert not all(student.student.backbone.everywhere)
    whole, maps = student.with_blocks(one.tile(1, 1, 2, 3), list(range(count)), window=2)
    assert torch.allclose(maps[-1], whole.student.spatial, atol=1e-5)  # this backbone has no norm after its last block
    # before the first block with global attention, a window is what an image of that window is, at the same positions
    student.student.backbone.positions.grid.zero_()
    first = student.student.backbone.everywhere.index(True)
    _, alone = student.with_blocks(one, list(range(first)), window=2)
    _, tiled = student.with_blocks(torch.cat([one, one.flip(2)], dim=3), list(range(first)), window=2)
    assert first > 0
    for small, large in zip(alone, tiled, strict=True):
        assert torch.allclose(large[:, :, :2], small, atol=1e-5)
        assert not torch.allclose(large[:, :, 2:], small, atol=1e-3)


def test_blocks_that_are_not_there_are_refused_by_name(folders: dict[str, Path]) -> None:
    student = trainer.load(folders["test_vit"])
    with pytest.raises(SettingError) as refusal:
        student.with_blocks(torch.rand(1, 3, 64, 64), ["99", "3-1", "first", -1])
    fix = (
        "is no block and no range of blocks (test_vit has the blocks 0 to 5: give one, or the first and last of several"
    )
    assert str(refusal.value) == "\n".join(
        ["blocks cannot be used:", *(f"  {text}: {fix} as 0-9)" for text in ("99", "3-1", "first"))]
    )
    with pytest.raises(SettingError, match="test_convnext: is a ConvNeXt, which is not a row of blocks"):
        trainer.student.blocks.blocks_of(Student("test_convnext"))


def test_the_normaliser_is_that_of_the_held_out_views(
    folders: dict[str, Path], full_cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folders["radio_test_vit"]
    pixels = torch.rand(1, 3, 64, 64)
    (folder / "blocks.safetensors").unlink(missing_ok=True)
    with pytest.raises(MissingError, match=r"no normaliser was fitted to these weights \(`python -m trainer normalise"):
        trainer.load(folder).with_blocks(pixels, [0], normalise=True)
    assert main(["normalise", "--student", str(folder), "--cache", full_cache.store.uri, "--batch", "2"]) == 0
    assert capsys.readouterr().out == f"normalise: {folder / 'blocks.safetensors'}, fitted on 7 held-out views\n"
    student, source, seen = trainer.load(folder), open_source(full_cache), list[Tensor]()
    for name in ("high-64", "low-32", "low-48"):
        views = ViewDataset(source, name, "heldout")
        for index in range(len(views)):
            with torch.no_grad():
                _, maps = student.with_blocks(unit_pixels(views[index].pixels), [1, 3], normalise=True)
            seen.append(torch.stack(maps).flatten(1, 3))
    normal = torch.cat(seen, dim=1).double()
    assert normal.mean(dim=1).abs().max() < 1e-4
    assert torch.allclose(normal.var(dim=1, correction=0).mean(dim=1), torch.ones(2).double(), atol=1e-4)


def test_a_normaliser_of_other_weights_or_other_views_is_not_used(
    folders: dict[str, Path], full_cache: Cache, cache_maker: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folders["test_vit"]
    assert main(["normalise", "--student", str(folder), "--cache", full_cache.store.uri]) == 0
    assert trainer.load(folder).normaliser is not None
    stale = (folder / "blocks.safetensors").read_bytes()
    other = folders["radio_test_vit"] / "blocks.safetensors"
    kept = other.read_bytes() if other.exists() else None
    other.write_bytes(stale)
    assert trainer.load(folders["radio_test_vit"]).normaliser is None
    other.write_bytes(stale[:-3])
    with pytest.raises(CorruptionError, match=r"blocks\.safetensors: cannot be read .delete it, and repeat"):
        trainer.load(folders["radio_test_vit"])
    other.unlink() if kept is None else other.write_bytes(kept)
    elsewhere = cache_maker(tmp_path / "cache", {"low-32": 10}).views().cache
    capsys.readouterr()
    assert main(["normalise", "--student", str(folder), "--cache", elsewhere.store.uri]) == 2
    assert "and the student was trained on " in capsys.readouterr().err
    with pytest.raises(IdentityError):
        trainer.normaliser.normalise_student(
            trainer.load(folder), elsewhere, trainer.run_folder.RunFolder(path=folder), 4
        )


def test_sums_of_parts_give_the_normaliser_of_the_whole() -> None:
    features = 5 + 3 * torch.randn(2, 600, 8, dtype=torch.float64)
    parts = [
        BlockSums(tokens=part.shape[1], total=part.sum(dim=1), squares=part.square().sum(dim=(1, 2)))
        for part in features.split([100, 500], dim=1)
    ]
    found = fit_normaliser(parts[0] + parts[1])
    assert torch.allclose(found.mean, features.mean(dim=1).float(), atol=1e-5)
    variance = features.var(dim=1, correction=0).mean(dim=1)
    assert torch.allclose(found.scale, variance.sqrt().float(), atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_program_gives_the_features_of_blocks(
    folders: dict[str, Path], full_cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, groups = folders["radio_test_vit"], ["1", "2-3"]
    assert main(["normalise", "--student", str(folder), "--cache", full_cache.store.uri]) == 0
    command = ["export", "--student", str(folder), "--to", str(tmp_path), "--blocks", *groups]
    assert main([*command, "--normalise", "--height", "64", "--width", "96"]) == 0
    student, program = trainer.load(folder), torch.export.load(tmp_path / "student.pt2").module()
    pixels = torch.rand(2, 3, 64, 96)
    *_, first, second = program(pixels)
    _, maps = student.with_blocks(pixels, groups, normalise=True)
    assert torch.allclose(first, maps[0], atol=1e-4)
    assert torch.allclose(second, maps[1], atol=1e-4)
    capsys.readouterr()
    assert main([*command, "--format", "sam3"]) == 2
    assert "--blocks: sam3 has no outputs for them (choose the format torch or onnx)" in capsys.readouterr().err


@pytest.mark.slow
@torch.no_grad()
def test_a_graph_of_onnx_names_the_features_of_blocks_in_windows_too(folders: dict[str, Path], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    student = trial(folders["radio_test_vit"])
    path = write_portable(student, "onnx", ImageSize(window=2), tmp_path, ("1", "2-3"))
    session, pixels = onnxruntime.InferenceSession(path), torch.rand(1, 3, 64, 96)
    found = session.run(["block_1", "blocks_2_3"], {"pixels": pixels.numpy()})
    _, maps = student.with_blocks(pixels, ["1", "2-3"], window=2)
    for output, other in zip(maps, found, strict=True):
        assert torch.allclose(output, torch.from_numpy(other), atol=1e-4)
