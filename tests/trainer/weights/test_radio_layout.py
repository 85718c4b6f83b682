"""C-RADIO's weights, there and back: a student of ours, `RadioModel` of transformers and timm give the same outputs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from timm.models.naflexvit import checkpoint_filter_fn
from torch import Tensor

from storage_schemas.format.errors import SettingError
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.model import DistilledModel
from trainer.student.shape import StudentShape
from trainer.student.student import Student
from trainer.weights import radio_layout
from trainer.weights.origin import find_weights
from trainer.weights.radio_layout import (
    TIMM_MODELS,
    TimmModel,
    not_radio,
    radio_config,
    radio_tensors,
    timm_model,
    timm_tensors,
)
from trainer.weights.start import StartedStudent, start_from

transformers = pytest.importorskip("transformers", minversion="5.23")
SIZES = ((96, 96), (64, 160), (192, 80))
"""Height and width (px): square, wide, and beyond the grid of 8 × 8 positions of patches of 16 px."""
VIT = VitSettings(position_grid=8, registers=2, spare_class_tokens=1, global_blocks=2)
TEACHERS = ("dinov3", "siglip2")
SMALL = {"embed_dim": 64, "depth": 6, "num_heads": 2, "mlp_ratio": 3.0, "reg_tokens": 4, "pos_embed_grid_size": (8, 8)}
"""Settings that make timm's C-RADIO as small as `test_vit`."""
PLAIN = {"embed_dim": 64, "depth": 6, "num_heads": 2, "mlp_ratio": 3.0, "reg_tokens": 4, "img_size": 128}
"""The same for its plain vision transformer, which is for one image size."""


def student(vit: VitSettings = VIT, name: str = "radio_test_vit") -> Student:
    torch.manual_seed(0)
    model = Student(name, vit=vit, summarised=TEACHERS)
    spread(model.backbone)
    return model.eval()


@torch.no_grad()
def spread(model: torch.nn.Module) -> None:
    """Draw weights of ordinary size, so that every tensor counts in the outputs."""
    for weight in model.parameters():
        weight += torch.randn(weight.shape) * (0.15 if weight.ndim == 2 else 0.3)


def theirs(**settings: Any) -> Any:
    torch.manual_seed(1)
    sizes = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2, "mlp_ratio": 3.0}
    tokens = {"max_img_size": 128, "num_cls_tokens": 3, "num_registers": 2}
    model = transformers.RadioModel(transformers.RadioConfig(**{**sizes, **tokens, **settings})).eval()
    spread(model)
    return model


def start(model: Student, setting: Path) -> StartedStudent:
    origin = find_weights(str(setting), model.name, None)
    assert origin is not None
    shape = StudentShape(channels=64, summary_channels=64, tokens={})
    return start_from(DistilledModel(model, shape, {}, HeadSettings(width=8)), origin, {})


@torch.no_grad()
def assert_same(ours: Student, model: Any) -> None:
    for size in SIZES:
        pixels = torch.rand(2, 3, *size)
        found, expected = ours(pixels), model(pixels)
        assert relative(found.spatial.flatten(1, 2), expected.features) < 1e-5
        assert relative(found.summaries.flatten(1), expected.summary) < 1e-5


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def test_a_student_written_for_transformers_is_the_same_model_there(tmp_path: Path) -> None:
    ours = student()
    write(ours, tmp_path)
    model, told = transformers.RadioModel.from_pretrained(tmp_path, output_loading_info=True)
    # C-RADIO has no LayerScale, and transformers' own is 1
    assert all("layer_scale" in name for name in told.pop("missing_keys"))
    assert not any(told.values())
    assert_same(ours, model.eval())
    assert (model.config.num_cls_tokens, model.config.num_registers, model.config.summary_idxs) == (3, 2, [0, 1])


def write(ours: Student, folder: Path) -> None:
    tensors = radio_tensors(ours.backbone, ours.mean, ours.std)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(radio_config(ours.backbone, ours.mean, ours.std)))


@pytest.mark.parametrize("original", [True, False])
def test_a_student_starts_from_a_radio_model_of_transformers_in_both_of_its_layouts(
    original: bool, tmp_path: Path
) -> None:
    model, ours = theirs(norm_mean=[0.1, 0.2, 0.3], norm_std=[0.4, 0.5, 0.6]), student()
    model.save_pretrained(tmp_path, save_original_format=original)
    names = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert ("radio_model.model.patch_generator.pos_embed" in names) is original
    assert "radio_model.model.blocks.0.layer_scale1.lambda1" in names or not original  # not in NVlabs' own files
    started = start(ours, tmp_path)
    assert_same(ours, model)
    assert "new, as drawn from the seed: nothing" in started.lines


def test_layer_scale_under_nvlabs_own_name_is_folded_into_a_student_without_any(tmp_path: Path) -> None:
    model, ours = theirs(), student()
    model.save_pretrained(tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    named = {re.sub(r"layer_scale([12])\.lambda1", r"ls\1.grandma", name): value for name, value in tensors.items()}
    assert len(named.keys() - tensors.keys()) == 12
    safetensors.torch.save_file(named, tmp_path / "model.safetensors")
    started = start(ours, tmp_path)
    assert_same(ours, model)
    assert "folded: LayerScale, into the layers before it (this student has none)" in started.lines


def test_the_class_tokens_of_the_summary_come_first(tmp_path: Path) -> None:
    model, ours = theirs(summary_idxs=[2, 0]), student()
    model.save_pretrained(tmp_path)
    start(ours, tmp_path)
    assert_same(ours, model)


def test_pixel_statistics_that_bfloat16_rounded_become_exact_again(tmp_path: Path) -> None:
    model, ours = theirs(), student()
    model.bfloat16().save_pretrained(tmp_path)
    assert safetensors.torch.load_file(tmp_path / "model.safetensors")[
        "radio_model.input_conditioner.norm_mean"
    ].dtype == (torch.bfloat16)
    ours.mean.zero_()
    started = start(ours, tmp_path)
    assert ours.mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073], abs=1e-7)
    assert "stored as bfloat16, trained in float32" in started.lines
    exact = model.float()
    exact.input_conditioner.norm_mean.copy_(ours.mean[0])
    exact.input_conditioner.norm_std.copy_(ours.std[0])
    assert_same(ours, exact)


@torch.no_grad()
@pytest.mark.parametrize("name", ["radio_test_vit", "radio_test_vit2"])
def test_timms_model_reads_what_we_write_and_a_student_reads_timms(name: str, tmp_path: Path) -> None:
    vit = VitSettings(position_grid=8, registers=2, spare_class_tokens=1, global_blocks=2)
    ours = student(vit, name)
    scaled = "ls1.gamma" in ours.backbone.blocks[0].state_dict()
    assert scaled == (name == "radio_test_vit2")
    safetensors.torch.save_file(timm_tensors(ours.backbone, scaled=scaled), tmp_path / "timm.safetensors")
    sizes = {**SMALL, "depth": len(ours.backbone.blocks), "init_values": 1.0 if scaled else None}
    naflex = timm.create_model("naflexvit_huge_patch16_radio_v4", pretrained=False, **sizes).eval()
    timm.models.load_checkpoint(naflex, str(tmp_path / "timm.safetensors"), filter_fn=checkpoint_filter_fn)
    compare_with_timm(ours, naflex)

    spread(naflex)
    naflex.embeds.proj.bias.zero_()
    safetensors.torch.save_file(naflex.state_dict(), tmp_path / "naflex.safetensors")
    again = student(vit, name)
    started = start(again, tmp_path / "naflex.safetensors")
    compare_with_timm(again, naflex)
    assert "new, as drawn from the seed: nothing" in started.lines


@torch.no_grad()
def compare_with_timm(ours: Student, model: Any) -> None:
    for size in SIZES:
        pixels = torch.rand(2, 3, *size)
        found, expected = ours(pixels), model.forward_features((pixels - ours.mean) / ours.std)
        assert relative(found.spatial.flatten(1, 2), expected[:, 5:]) < 1e-5
        assert relative(found.summaries, expected[:, :2]) < 1e-5


def test_a_timm_student_starts_from_c_radio_too(tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path)
    model = Student("test_vit")  # its classes of timm are those of `vit_huge_patch16_radio_v4`
    model.backbone = timm.create_model("vit_huge_patch16_radio_v4", pretrained=False, num_classes=0, **PLAIN)
    start(model, tmp_path)
    ours = student()
    start(ours, tmp_path)
    with torch.no_grad():
        pixels = torch.rand(1, 3, 128, 128)  # the one size at which timm's plain model is C-RADIO
        expected = model.backbone.forward_features((pixels - model.mean) / model.std)
        assert relative(ours.eval()(pixels).spatial.flatten(1, 2), expected[:, 5:]) < 1e-5


def test_sizes_whose_ratio_rounds_down_are_written_so_that_they_come_out_right() -> None:
    for channels in (64, 96, 192, 768, 1152, 1280, 1536):
        for hidden in range(channels, 5 * channels, 7):
            ratio = radio_layout._ratio(hidden, channels)
            assert int(channels * ratio) == hidden


@pytest.mark.slow
@pytest.mark.parametrize("model", TIMM_MODELS, ids=lambda model: model.name)
def test_timms_own_models_are_recognised_by_their_sizes(model: TimmModel) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(model.name, pretrained=False, num_classes=0)
        vit = VitSettings(registers=model.tokens - 2)
        ours = Student(f"radio_{model.name.replace('naflexvit', 'vit')}", vit=vit, summarised=TEACHERS)
    written = {"cls_token", "reg_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    written |= {f"blocks.{name}" for name in ours.backbone.blocks.state_dict()}
    assert timm_model(ours.backbone) == model
    names = {name.replace("embeds.proj", "patch_embed.proj").replace("embeds.", "") for name in theirs.state_dict()}
    assert written == names
    assert theirs.embeds.pos_embed_align_corners is False


@pytest.mark.parametrize(
    ("name", "vit", "problem"),
    [
        ("radio_test_vit", VitSettings(final_norm=True, global_blocks=2), "norm: C-RADIO has no norm there "),
        ("radio_vit_xsmall_patch16_clip_224", VIT, "norm_pre: C-RADIO has no norm there"),
        ("radio_vit_tiny_patch16_224", VIT, ""),
        ("test_vit", VitSettings(), "backbone: is without RADIO's additions (only presets and radio_ students "),
    ],
)
def test_a_backbone_that_c_radio_cannot_hold_is_refused(name: str, vit: VitSettings, problem: str) -> None:
    with torch.device("meta"):
        backbone = Student(name, vit=vit, summarised=TEACHERS).backbone
    assert [str(found).startswith(problem) for found in not_radio(backbone)][:1] == ([True] if problem else [])


def test_a_block_with_another_activation_is_refused_by_number() -> None:
    ours = student()
    ours.backbone.blocks[3].mlp.act = torch.nn.SiLU()
    assert [problem.place for problem in not_radio(ours.backbone)] == ["blocks.3"]


def test_weights_of_c_radio_with_other_tokens_are_refused_with_the_setting_that_fits(tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path)
    with pytest.raises(SettingError) as refusal:
        start(student(VitSettings(position_grid=8, global_blocks=2)), tmp_path)
    assert str(refusal.value.problems[0]) == (
        "the weights: have 5 tokens before the patches, the student has 2 class tokens and 8 registers "
        "(--vit.registers 3)"
    )


def test_a_part_of_c_radio_that_is_unknown_or_missing_is_refused_by_name(tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["radio_model.model.neck.weight"] = torch.zeros(2)
    del tensors["radio_model.model.blocks.3.norm2.bias"]
    tensors["radio_model.adaptors.sam3.head.weight"] = torch.zeros(2)
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(SettingError) as refusal:
        start(student(), tmp_path)
    assert [str(problem) for problem in refusal.value.problems] == [
        "blocks.3.norm2.bias: is missing in the weights",
        "neck.weight: is not a tensor of this student",
    ]
