"""Vision models of transformers as teachers: what is read from a folder, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTForImageClassification,
)

from storage_schemas.format.errors import ContractError, MissingError, SettingError
from storage_schemas.format.teacher import TeacherSpec
from teachers.build import build_teacher
from teachers.library import library_model
from teachers.source import kind_of, name_in_cache, spec_of, specs_of

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 10}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "dinov2": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            image_size=56, patch_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2
        )
    ),
    "convnext": lambda: ConvNextModel(ConvNextConfig(image_size=64, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4)),
    "clip": lambda: CLIPModel(
        CLIPConfig(text_config=TEXT, vision_config={"image_size": 64, "patch_size": 16, **SMALL})
    ),
    "classifier": lambda: ViTForImageClassification(ViTConfig(image_size=64, patch_size=16, num_labels=3, **SMALL)),
}
PIXELS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5]}


@pytest.fixture(autouse=True)
def fresh() -> Any:
    """Descriptions are kept for a process, and these tests change folders."""
    yield
    library_model.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, randomised: Callable[[nn.Module], nn.Module]) -> Callable[[str], tuple[nn.Module, Path]]:
    def save(name: str) -> tuple[nn.Module, Path]:
        network, where = randomised(MODELS[name]()), tmp_path / name
        network.save_pretrained(where)
        (where / "preprocessor_config.json").write_text(json.dumps(PIXELS))
        (where / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\nA model.\n")
        return network, where

    return save


def facts(spec: TeacherSpec) -> tuple:
    return spec.dim, spec.summary_dim, spec.patch, spec.size_rule, spec.native, spec.licence


@pytest.mark.parametrize(
    ("name", "summary", "expected", "prefix"),
    [
        ("dinov2", "own", (32, 32, 14, "any", 56, "apache-2.0"), 5),
        ("convnext", "own", (32, 32, 32, "any", 64, "apache-2.0"), 0),
        ("clip", "own", (32, 32, 16, "fixed", 64, "apache-2.0"), 1),
        ("classifier", "mean", (32, 32, 16, "fixed", 64, "apache-2.0"), 1),
    ],
)
def test_features_are_those_of_transformers(
    folder: Callable, images: Callable, name: str, summary: Any, expected: tuple, prefix: int
) -> None:
    network, where = folder(name)
    source = f"hf:{where}"
    teacher = build_teacher(source, weights="hub", summary=summary)
    assert facts(teacher.spec) == expected
    assert (teacher.spec.mean, teacher.spec.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
    assert (kind_of(source), name_in_cache(source), teacher.spec.name) == ("hf", name, name)
    assert library_model(source, summary).prefix_tokens == prefix
    trunk = {"clip": "vision_model", "classifier": "vit"}.get(name)
    trunk_network: Any = getattr(network, trunk) if trunk else network
    pixels = images(2, teacher.spec.native, teacher.spec.native)
    with torch.no_grad():
        told = trunk_network(pixel_values=pixels)
    hidden = told.last_hidden_state
    side = teacher.spec.native_tokens
    map_ = hidden.permute(0, 2, 3, 1) if hidden.ndim == 4 else hidden[:, prefix:].unflatten(1, (side, side))
    output = teacher.encode(pixels)
    torch.testing.assert_close(output.spatial, map_)
    torch.testing.assert_close(output.summary, told.pooler_output.flatten(1) if summary == "own" else map_.mean((1, 2)))


def spoilt(where: Path, change: Callable[[dict], None]) -> str:
    tensors = load_file(where / "model.safetensors")
    change(tensors)
    save_file(tensors, where / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ContractError) as refused:
        build_teacher(f"hf:{where}", weights="hub")
    return str(refused.value)


def test_a_file_with_one_wrong_tensor_is_refused_by_name(folder: Callable) -> None:
    name = "encoder.layer.1.mlp.fc1.weight"
    assert f"{name}: missing" in spoilt(folder("dinov2")[1], lambda tensors: tensors.pop(name))
    renamed = spoilt(folder("dinov2")[1], lambda tensors: tensors.update({f"{name}s": tensors.pop(name)}))
    assert f"{name}: missing" in renamed
    assert f"{name}s: unexpected" in renamed
    shape = spoilt(folder("dinov2")[1], lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    assert f"{name}: shape (127, 32), expected (128, 32)" in shape
    nan = spoilt(folder("dinov2")[1], lambda tensors: tensors[name].fill_(torch.nan))
    assert f"{name}: NaN or infinity" in nan


def test_a_pooler_that_a_checkpoint_lacks_is_refused_or_left_out_by_the_summary(folder: Callable) -> None:
    _, where = folder("classifier")
    with pytest.raises(ContractError, match=r"pooler\.dense\.weight: missing"):
        build_teacher(f"hf:{where}", weights="hub")
    assert build_teacher(f"hf:{where}", weights="hub", summary="class-token").spec.summary_dim == 32


def test_what_a_folder_does_not_say_is_refused(folder: Callable) -> None:
    _, where = folder("convnext")
    with pytest.raises(SettingError, match="'class-token', and the model has none"):
        spec_of(f"hf:{where}", summary="class-token")
    with pytest.raises(SettingError, match="only the map of its last block"):
        specs_of(f"hf:{where}", layers=(1,))
    (where / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3]}))
    library_model.cache_clear()
    with pytest.raises(ContractError, match="gives no image_std"):
        spec_of(f"hf:{where}")
    (where / "config.json").write_text(json.dumps({"model_type": "not-known"}))
    with pytest.raises(ContractError, match=r"config\.json"):
        spec_of(f"hf:{where}")


def test_other_channels_than_the_configuration_declares_are_refused_with_both_values(
    folder: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, where = folder("dinov2")
    monkeypatch.setattr("teachers.hf_model._declared_channels", lambda _config: [31])
    with pytest.raises(ContractError, match="has 32 channels, and the configuration declares 31"):
        spec_of(f"hf:{where}")


def test_a_repository_that_is_not_here_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def absent(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr("teachers.hub.snapshot_download", absent)
    with pytest.raises(MissingError) as missing:
        spec_of("hf:facebook/dinov2-base")
    assert "https://huggingface.co/facebook/dinov2-base: not in the hub's cache" in str(missing.value)
    assert "WEIGHTS=/path/to/file-or-folder" in str(missing.value)
