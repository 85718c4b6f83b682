"""The format `radio`: transformers and timm compute what the student computes, or nothing is written."""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from storage_schemas.format.errors import ContractError, MissingError, SettingError
from trainer.export import ExportedStudent
from trainer.portable import radio_model
from trainer.portable.image_size import ImageSize
from trainer.portable.write import write_portable
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.model import DistilledModel, TeacherShape
from trainer.student.shape import StudentShape
from trainer.student.student import Student
from trainer.weights import radio_layout
from trainer.weights.radio_layout import TimmModel

transformers = pytest.importorskip("transformers", minversion="5.23")
ANY = ImageSize()
VIT = VitSettings(position_grid=8, registers=2, spare_class_tokens=1, global_blocks=2)
TEACHERS = {
    "dinov3": TeacherShape(dim=12, summary_dim=12),
    "siglip2": TeacherShape(dim=12, summary_dim=8),
    "sam3": TeacherShape(dim=12, summary_dim=None),
}


def exported(name: str = "radio_test_vit", vit: VitSettings = VIT) -> ExportedStudent:
    torch.manual_seed(0)
    student = Student(name, vit=vit, summarised=["dinov3", "siglip2"])
    sizes = StudentShape(channels=64, summary_channels=64, tokens={})
    model = DistilledModel(student, sizes, TEACHERS, HeadSettings(width=16))
    return ExportedStudent(model, {"teachers": TEACHERS}).eval()


@torch.no_grad()
def test_the_folder_is_a_radio_model_with_the_students_outputs_at_any_size(tmp_path: Path) -> None:
    student = exported()
    folder = write_portable(student, "radio", ANY, tmp_path)
    assert folder == tmp_path / "radio"
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    model = transformers.AutoModel.from_pretrained(folder).eval()
    assert type(model) is transformers.RadioModel
    for size in ((64, 64), (48, 160), (224, 352)):
        pixels = torch.rand(2, 3, *size)
        output, theirs = student(pixels).student, model(pixels)
        assert torch.allclose(theirs.features, output.spatial.flatten(1, 2), atol=1e-5)
        assert torch.allclose(theirs.summary, output.summaries.flatten(1), atol=1e-5)
        assert theirs.summary.shape == (2, 128)  # two of three class tokens
        assert theirs.last_hidden_state.shape[1] == 5 + size[0] * size[1] // 256


def test_all_tensors_are_float32_so_that_the_means_of_pixels_are_exact(tmp_path: Path) -> None:
    folder = write_portable(exported(), "radio", ANY, tmp_path)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    kinds = {name: value.dtype for name, value in tensors.items()}
    assert kinds.pop("radio_model.summary_idxs") == torch.int64
    assert set(kinds.values()) == {torch.float32}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert tensors["radio_model.input_conditioner.norm_mean"].flatten().tolist() == [0.5, 0.5, 0.5]


def test_transformers_prepares_pictures_without_normalising_them_twice(tmp_path: Path) -> None:
    folder = write_portable(exported(), "radio", ANY, tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels[0], torch.from_numpy(picture).permute(2, 0, 1) / 255, atol=1e-6)


@torch.no_grad()
def test_a_student_of_c_radios_size_also_gives_a_file_for_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = TimmModel(name="naflexvit_huge_patch16_radio_v4", channels=64, depth=6, heads=2, hidden=192, tokens=5)
    sizes = {"embed_dim": 64, "depth": 6, "num_heads": 2, "mlp_ratio": 3.0, "reg_tokens": 4}
    student, built = exported(vit=VitSettings(registers=2, spare_class_tokens=1, global_blocks=2)), timm.create_model
    monkeypatch.setattr(radio_layout, "TIMM_MODELS", (small,))
    monkeypatch.setattr(timm, "create_model", lambda name, **settings: built(name, **settings, **sizes))
    folder = write_portable(student, "radio", ANY, tmp_path)
    # with timm alone: its plain model too, which is for one size
    plain: Any = built("vit_huge_patch16_radio_v4", pretrained=False, img_size=128, num_classes=0, **sizes).eval()
    tensors = safetensors.torch.load_file(folder / "timm.safetensors")
    plain.load_state_dict(checkpoint_filter_fn(tensors, plain, interpolation="bilinear", antialias=False))
    pixels = torch.rand(1, 3, 128, 128)
    tokens = plain.forward_features((pixels - 0.5) / 0.5)
    assert torch.allclose(tokens[:, 5:], student(pixels).student.spatial.flatten(1, 2), atol=1e-5)


def turned(backbone: Any, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """Weights whose grid of positions has rows for columns."""
    tensors = radio_layout.radio_tensors(backbone, mean, std)
    positions = "radio_model.model.patch_generator.pos_embed"
    tensors[positions] = tensors[positions].unflatten(1, (8, 8)).transpose(1, 2).flatten(1, 2).contiguous()
    return tensors


def test_a_folder_whose_outputs_differ_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radio_model, "radio_tensors", turned)
    student = exported()
    student.student.backbone.positions.grid.data.zero_()  # hides the turn: only the weights of the trial show it
    with pytest.raises(ContractError, match="spatial: differs from the student by"):
        write_portable(student, "radio", ANY, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("student", "size", "problem"),
    [
        (exported("test_vit", VitSettings()), ANY, "backbone: is without RADIO's additions"),
        (exported(vit=VitSettings(final_norm=True, global_blocks=2)), ANY, "norm: C-RADIO has no norm there"),
        (exported(), ImageSize(window=2), "--window: RadioModel has no attention windows"),
    ],
)
def test_a_student_that_c_radio_cannot_hold_is_refused(
    student: ExportedStudent, size: ImageSize, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError) as refusal:
        write_portable(student, "radio", size, tmp_path)
    assert str(refusal.value.problems[0]).startswith(problem)


def test_a_transformers_without_radio_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = ModuleType("transformers")
    older.__spec__, older.__version__ = ModuleSpec("transformers", None), "5.17.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", older)
    with pytest.raises(MissingError, match=r"transformers: version 5\.17\.0 of it has no RadioModel"):
        write_portable(exported(), "radio", ANY, tmp_path)
