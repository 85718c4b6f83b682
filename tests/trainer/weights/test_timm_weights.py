"""Starting weights of timm: every tensor arrives in each layout, what is new is listed, and misfits are named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from storage_schemas.format.errors import MissingError, SettingError
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.model import DistilledModel, TeacherShape
from trainer.student.shape import StudentShape
from trainer.student.student import Student
from trainer.weights import hub
from trainer.weights.origin import find_weights
from trainer.weights.start import StartedStudent, start_from

TEACHERS = {"any": TeacherShape(dim=8, summary_dim=6), "canvas": TeacherShape(dim=4, summary_dim=None)}
ADDED = VitSettings(position_grid=10, registers=2, spare_class_tokens=1, global_blocks=2)
PLAIN = VitSettings()


def new_model(name: str, vit: VitSettings = PLAIN, image_size: int | None = None) -> DistilledModel:
    torch.manual_seed(1)
    student = Student(name, image_size, vit, ["any"])
    channels = student.backbone.num_features if vit is PLAIN else student.backbone.channels
    shape = StudentShape(channels=channels, summary_channels=channels, tokens={})
    return DistilledModel(student, shape, TEACHERS, HeadSettings(width=8))


def published(name: str = "test_vit", **settings: Any) -> dict[str, Tensor]:
    """A checkpoint as timm would save it, with its classifier: seeded numbers everywhere."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **settings)
    drawn = {name: torch.randn(value.shape) * 0.1 + 0.01 for name, value in model.state_dict().items()}
    return {name: value.to(model.state_dict()[name].dtype) for name, value in drawn.items()}


def start(model: DistilledModel, setting: Path | str, name: str = "test_vit") -> StartedStudent:
    origin = find_weights(str(setting), name, None)
    assert origin is not None
    return start_from(model, origin, {})


def as_safetensors(tensors: dict[str, Tensor], folder: Path) -> Path:
    safetensors.torch.save_file(tensors, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def as_pth(tensors: dict[str, Tensor], folder: Path) -> Path:
    torch.save(tensors, folder / "weights.pth")
    return folder / "weights.pth"


def as_checkpoint_of_training(tensors: dict[str, Tensor], folder: Path) -> Path:
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}}, folder / "a.pt"
    )
    return folder / "a.pt"


def as_folder(tensors: dict[str, Tensor], folder: Path) -> Path:
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    about = {"architecture": "test_vit", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def as_shards(tensors: dict[str, Tensor], folder: Path) -> Path:
    names, listed = sorted(tensors), {}
    for number in range(2):
        file = f"model-{number}.safetensors"
        part = {name: tensors[name] for name in names[number::2]}
        safetensors.torch.save_file(part, folder / file)
        listed |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return folder


LAYOUTS = [as_safetensors, as_pth, as_checkpoint_of_training, as_folder, as_shards]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_of_a_timm_checkpoint_arrives_and_only_the_heads_are_new(
    layout: Callable[[dict[str, Tensor], Path], Path], tmp_path: Path
) -> None:
    tensors, model = published(), new_model("test_vit")
    before = {name: value.clone() for name, value in model.heads.state_dict().items()}
    started = start(model, layout(tensors, tmp_path))
    own = model.student.backbone.state_dict()
    assert own.keys() == tensors.keys() - {"head.weight", "head.bias"}
    assert all(torch.equal(value, tensors[name]) for name, value in own.items())
    assert set(started.new) == {f"heads.{name}" for name, _ in model.heads.named_parameters()}
    assert all(torch.equal(value, before[name]) for name, value in model.heads.state_dict().items())
    assert "left out: head.bias, head.weight (its classifier)" in started.lines
    assert started.lines[-1] == (
        "new, as drawn from the seed: the head any_spatial, the head any_summary, the head canvas_spatial"
    )
    mean = [0.1, 0.2, 0.3] if layout is as_folder else [0.5, 0.5, 0.5]
    assert model.student.mean.flatten().tolist() == pytest.approx(mean)


def test_a_student_with_additions_gets_every_part_of_a_timm_checkpoint(tmp_path: Path) -> None:
    tensors, model = published(), new_model("radio_test_vit", ADDED)
    started = start(model, as_safetensors(tensors, tmp_path), "radio_test_vit")
    backbone = model.student.backbone
    blocks = {name: value for name, value in backbone.state_dict().items() if name.startswith(("blocks.", "norm"))}
    assert blocks.keys() == {name for name in tensors if name.startswith("blocks.")}
    assert all(torch.equal(value, tensors[name]) for name, value in blocks.items())
    assert torch.equal(backbone.patch_embed.proj.weight, tensors["patch_embed.proj.weight"])
    positions, bias = tensors["pos_embed"][0], tensors["patch_embed.proj.bias"]
    expected = positions[1:].T.unflatten(1, (10, 10)) + bias[:, None, None]  # 160 px: no resampling
    assert torch.equal(backbone.positions.grid, expected)
    assert torch.equal(backbone.class_tokens, (tensors["cls_token"][0] + positions[:1]).expand(2, -1))
    heads = {f"heads.{name}" for name, _ in model.heads.named_parameters()}
    assert set(started.new) == heads | {"student.backbone.registers"}
    assert sorted(started.lines[2:-1]) == sorted([
        "loaded: 75 of the backbone's 76 tensors",
        "left out: head.bias, head.weight (classifier and pooling)",
        "left out: norm.bias, norm.weight (this student has no final norm; --vit.final-norm True keeps it)",
        "added: patch_embed.proj.bias, to all positions",
        "copied: the class token, to all 2 class tokens",
    ])  # fmt: skip


@torch.no_grad()
def test_with_its_class_token_and_grid_a_student_with_additions_is_the_model_of_timm(tmp_path: Path) -> None:
    model = new_model("radio_test_vit", VitSettings(position_grid=10, registers=0, global_blocks=2, final_norm=True))
    tensors = published(global_pool="token")
    start(model, as_safetensors(tensors, tmp_path), "radio_test_vit")
    theirs = timm.create_model("test_vit", pretrained=False, global_pool="token").eval()
    theirs.load_state_dict(tensors)
    pixels = torch.rand(2, 3, 160, 160)
    expected = theirs.forward_features((pixels - 0.5) / 0.5)
    found = model.student.eval()(pixels)
    assert torch.allclose(found.summaries[:, 0], expected[:, 0], atol=1e-4)
    assert torch.allclose(found.spatial.flatten(1, 2), expected[:, 1:], atol=1e-4)


def renamed(tensors: dict[str, Tensor]) -> str:
    tensors["blocks.2.attn.kqv.weight"] = tensors.pop("blocks.2.attn.qkv.weight")
    return (
        "blocks.2.attn.qkv.weight: is missing in the weights\n  "
        "blocks.2.attn.kqv.weight: is not a tensor of this student"
    )


def missing(tensors: dict[str, Tensor]) -> str:
    del tensors["blocks.0.norm1.bias"]
    return "blocks.0.norm1.bias: is missing in the weights"


def reshaped(tensors: dict[str, Tensor]) -> str:
    tensors["blocks.1.mlp.fc1.weight"] = torch.zeros(192, 63)
    return "blocks.1.mlp.fc1.weight: has shape 192 × 63, the student has 192 × 64"


def with_one_more(tensors: dict[str, Tensor]) -> str:
    tensors["neck.weight"] = torch.zeros(3)
    return "neck.weight: is not a tensor of this student"


def with_nan(tensors: dict[str, Tensor]) -> str:
    tensors["blocks.1.mlp.fc1.bias"][3] = torch.nan
    return "blocks.1.mlp.fc1.bias: holds NaN or infinity"


@pytest.mark.parametrize("damage", [renamed, missing, reshaped, with_one_more, with_nan])
@pytest.mark.parametrize("name", ["test_vit", "radio_test_vit"])
def test_a_misfit_is_refused_by_name_and_nothing_is_loaded(
    damage: Callable[[dict[str, Tensor]], str], name: str, tmp_path: Path
) -> None:
    tensors, model = published(), new_model(name, ADDED if name.startswith("radio") else PLAIN)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    problem = damage(tensors)
    path = as_safetensors(tensors, tmp_path)
    with pytest.raises(SettingError) as refusal:
        start(model, path, name)
    assert str(refusal.value) == f"starting weights {path} cannot be used:\n  {problem}"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["test_vit", "radio_test_vit"])
def test_positions_that_are_no_square_grid_are_refused(name: str, tmp_path: Path) -> None:
    tensors, model = published(), new_model(name, ADDED if name.startswith("radio") else PLAIN)
    tensors["pos_embed"] = tensors["pos_embed"][:, :99]
    with pytest.raises(SettingError, match="pos_embed: has shape 1 × 99 × 64"):
        start(model, as_safetensors(tensors, tmp_path), name)


def test_positions_and_patches_of_another_size_are_resampled_as_timm_does_and_told(tmp_path: Path) -> None:
    tensors = published("vit_tiny_patch16_224", depth=1)
    model = new_model("radio_vit_tiny_patch16_224", VitSettings(position_grid=7, registers=0, global_blocks=1))
    del model.student.backbone.blocks[1:]
    tensors["patch_embed.proj.weight"] = torch.randn(192, 3, 14, 14)
    started = start(model, as_safetensors(tensors, tmp_path))
    grid = resample_abs_pos_embed(tensors["pos_embed"], [7, 7])[0, 1:].T.unflatten(1, (7, 7))
    backbone = model.student.backbone
    assert torch.allclose(backbone.positions.grid, grid + tensors["patch_embed.proj.bias"][:, None, None], atol=1e-6)
    expected = resample_patch_embed(tensors["patch_embed.proj.weight"], [16, 16])
    assert torch.equal(backbone.patch_embed.proj.weight, expected)
    assert {line for line in started.lines if line.startswith("resampled")} == {
        "resampled: positions from 14 × 14 to 7 × 7",
        "resampled: patch_embed.proj.weight from 192 × 3 × 14 × 14 to 192 × 3 × 16 × 16",
    }


def test_a_position_table_for_another_image_size_is_resampled_and_told(tmp_path: Path) -> None:
    tensors, model = published(), new_model("test_vit", image_size=64)
    started = start(model, as_safetensors(tensors, tmp_path))
    assert torch.equal(model.student.backbone.pos_embed, resample_abs_pos_embed(tensors["pos_embed"], [4, 4]))
    assert "resampled: pos_embed from 1 × 101 × 64 to 1 × 17 × 64" in started.lines


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_efficientnet", "test_nfnet"])
def test_other_families_start_from_timms_weights_too(name: str, tmp_path: Path) -> None:
    tensors, model = published(name), new_model(name)
    start(model, as_safetensors(tensors, tmp_path), name)
    own = model.student.backbone.state_dict()
    assert all(torch.equal(value, tensors[name].to(value.dtype)) for name, value in own.items())


def test_weights_that_run_code_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": published(), "args": Path("x")}, tmp_path / "weights.pth")
    with pytest.raises(SettingError, match="no code in it was run"):
        start(new_model("test_vit"), tmp_path / "weights.pth")


def test_weights_of_a_model_with_other_attention_heads_are_refused(tmp_path: Path) -> None:
    folder = as_folder(published(), tmp_path)
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 8}))
    with pytest.raises(SettingError, match="attention heads: the weights were trained with 8, the student has 2"):
        start(new_model("test_vit"), folder)


def test_weights_that_are_not_on_this_machine_are_asked_for_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    for setting, student in {
        "timm": "vit_small_patch16_224",
        "augreg_in21k_ft_in1k": "radio_vit_small_patch16_224",
    }.items():
        with pytest.raises(MissingError) as refusal:
            find_weights(setting, student, None)
        assert str(refusal.value) == (
            "a copy of the weights of vit_small_patch16_224.augreg_in21k_ft_in1k is missing:\n"
            "  https://huggingface.co/timm/vit_small_patch16_224.augreg_in21k_ft_in1k: not in the hub's cache on this "
            "machine, and the hub cannot be reached (or HF_HUB_OFFLINE is set)\n"
            "  licence: apache-2.0\n"
            "  local copy: none was given (--student.weights /path/to/file-or-folder)"
        )


@pytest.mark.parametrize(
    ("setting", "student", "problem"),
    [
        ("timm", "huge", "timm: timm has no model huge (name the timm model whose weights it takes, such as "),
        (
            "augreg",
            "vit_small_patch16_224",
            "augreg: is no file, no folder, and no weights that timm publishes (tags of ",
        ),
        ("vit_smal_patch16_224", "small", "vit_smal_patch16_224: is no file, no folder, and no weights that timm "),
        ("timm", "vit_tiny_patch16_gap_reg4_dinov2", "timm: timm publishes no weights of "),
    ],
)
def test_a_setting_that_names_no_weights_is_refused(setting: str, student: str, problem: str) -> None:
    with pytest.raises(SettingError) as refusal:
        find_weights(setting, student, None)
    assert str(refusal.value.problems[0]).startswith(problem)


def test_published_weights_keep_their_own_pixel_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_safetensors(published("vit_tiny_patch16_224"), tmp_path)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: str(path))
    model = new_model("tiny", VitSettings(position_grid=14, registers=0))
    started = start(model, "vit_tiny_patch16_224.augreg_in21k", "tiny")
    assert model.student.mean.flatten().tolist() == [0.5, 0.5, 0.5]  # the presets' own is CLIP's
    assert "of timm's vit_tiny_patch16_224.augreg_in21k" in started.lines


def test_a_path_that_is_not_there_and_a_folder_with_two_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file or folder"):
        find_weights(str(tmp_path / "none.safetensors"), "test_vit", None)
    as_safetensors(published(), tmp_path)
    as_pth(published(), tmp_path)
    with pytest.raises(SettingError, match=r"several files of weights: weights\.pth, weights\.safetensors"):
        find_weights(str(tmp_path), "test_vit", None)
