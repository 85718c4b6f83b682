"""Vision transformers of transformers, in their own layout, give the same features as students."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from storage_schemas.format.errors import SettingError
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.model import DistilledModel
from trainer.student.shape import StudentShape
from trainer.student.student import Student
from trainer.weights.origin import find_weights
from trainer.weights.start import StartedStudent, start_from

transformers = pytest.importorskip("transformers", minversion="5.23")
SIZES = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2, "image_size": 160, "patch_size": 16}
VIT = VitSettings(position_grid=10, registers=0, global_blocks=2, final_norm=True)


def theirs(kind: str, **settings: Any) -> Any:
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, "hidden_dropout_prob": 0.0, **settings})
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += torch.randn(weight.shape) * (0.15 if weight.ndim == 2 else 0.3)
    return model


def start(name: str, folder: Path, vit: VitSettings = VIT) -> tuple[Student, StartedStudent]:
    student = Student(name, vit=vit if name.startswith("radio") else VitSettings(), summarised=["a"])
    shape = StudentShape(channels=64, summary_channels=64, tokens={})
    origin = find_weights(str(folder), name, None)
    assert origin is not None
    return student.eval(), start_from(DistilledModel(student, shape, {}, HeadSettings(width=8)), origin, {})


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_vit", "radio_test_vit"])
def test_a_vit_of_transformers_is_the_same_model_as_a_student(name: str, tmp_path: Path) -> None:
    model = theirs("ViT", intermediate_size=192)
    model.save_pretrained(tmp_path)
    about = {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    student, started = start(name, tmp_path)
    pixels = torch.rand(2, 3, 160, 160)
    mean, std = (torch.tensor(about[key]).reshape(3, 1, 1) for key in ("image_mean", "image_std"))
    expected = model((pixels - mean) / std).last_hidden_state
    assert torch.allclose(student(pixels).spatial.flatten(1, 2), expected[:, 1:], atol=1e-4)
    if name == "radio_test_vit":
        assert torch.allclose(student(pixels).summaries[:, 0], expected[:, 0], atol=1e-4)
    assert "left out: pooler.dense.bias, pooler.dense.weight (no part of the trunk)" in started.lines


@torch.no_grad()
@pytest.mark.parametrize(("kind", "registers"), [("Dinov2", 0), ("Dinov2WithRegisters", 4)])
def test_a_dinov2_of_transformers_is_the_same_model_as_a_student(kind: str, registers: int, tmp_path: Path) -> None:
    model = theirs(kind, mlp_ratio=3)
    model.save_pretrained(tmp_path)
    vit = VitSettings(position_grid=10, registers=registers, global_blocks=2, final_norm=True)
    student, started = start("radio_test_vit", tmp_path, vit)  # without LayerScale: it is folded
    pixels = torch.rand(2, 3, 160, 160)
    expected = model((pixels - student.mean) / student.std).last_hidden_state
    assert torch.allclose(student(pixels).spatial.flatten(1, 2), expected[:, 1 + registers :], atol=1e-4)
    assert torch.allclose(student(pixels).summaries[:, 0], expected[:, 0], atol=1e-4)
    assert any(line.startswith("folded: LayerScale") for line in started.lines)
    assert started.lines[-1].endswith("nothing")


def test_a_classifier_of_transformers_gives_its_trunk_and_a_misfit_is_named(tmp_path: Path) -> None:
    config = transformers.ViTConfig(**SIZES, intermediate_size=192)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    _, started = start("test_vit", tmp_path)
    assert "left out: classifier.bias, classifier.weight (no part of the trunk)" in started.lines
    path = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    del tensors["vit.encoder.layer.2.attention.attention.key.weight"]
    tensors["vit.neck.weight"] = torch.zeros(2)
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(SettingError) as refusal:
        start("radio_test_vit", tmp_path)
    assert {problem.place for problem in refusal.value.problems} == {
        "blocks.2.attn.qkv.weight",
        "blocks.2.attn.query.weight",
        "blocks.2.attn.value.weight",
        "neck.weight",
    }


def test_another_epsilon_of_norms_is_refused_where_it_matters(tmp_path: Path) -> None:
    theirs("ViT", intermediate_size=192, layer_norm_eps=1e-3).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match=r"epsilon of norms: the weights were trained with 0\.001, the student has"):
        start("test_vit", tmp_path)
