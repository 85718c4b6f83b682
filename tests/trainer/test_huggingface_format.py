"""transformers' AutoModel and timm load an exported student, and compute what it computes."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from storage_schemas.format.errors import ContractError, SettingError
from trainer.export import ExportedStudent
from trainer.portable import huggingface_folder, write
from trainer.portable.image_size import ImageSize
from trainer.portable.trial import with_trial_weights
from trainer.portable.write import write_portable
from trainer.settings.student import HeadSettings
from trainer.student.model import DistilledModel, TeacherShape
from trainer.student.shape import StudentShape
from trainer.student.student import Student
from trainer.student.timm_backbone import timm_output

transformers = pytest.importorskip("transformers")
TEACHER = {
    "model": "ViT-7B", "licence": "DINOv3 | License", "random_weights": False, "channels": 12,
    "summary_channels": None,
}  # fmt: skip
CARD: dict[str, Any] = {
    "teachers": {"dinov3": TEACHER, "noise": TEACHER | {"random_weights": True}},
    "recipe": {"name": "demo", "steps": 400, "seed": 3, "precision": "fp32"},
    "cache": {"views": "ab12", "rows": {"low-128": {"train": 7, "heldout": 2}}},
    "scores": {"step": 400, "teachers": {"dinov3": {"fidelity": 1.23456, "sets": {"low-128": 1.5}, "angle": None}}},
}


def exported(name: str, image_size: int | None = None) -> ExportedStudent:
    torch.manual_seed(0)
    student = Student(name, image_size)
    shape = StudentShape(channels=8, summary_channels=8, tokens={})
    model = DistilledModel(student, shape, {"dinov3": TeacherShape(dim=12, summary_dim=None)}, HeadSettings(width=8))
    return with_trial_weights(ExportedStudent(model, CARD | {"student": name, "image_size": image_size}).eval())


@pytest.mark.parametrize(
    ("name", "image_size", "sizes"),
    [
        ("test_vit", None, [(160, 160), (64, 96)]),
        ("test_vit", 64, [(64, 64), (160, 96)]),
        ("test_convnext", None, [(160, 160), (64, 96)]),
        pytest.param("vit_small_patch16_dinov3", None, [(256, 256), (64, 96)], marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224", None, [(224, 224)], marks=pytest.mark.slow),
        pytest.param("hiera_tiny_224", None, [(224, 224)], marks=pytest.mark.slow),
        pytest.param("test_resnet", None, [(160, 160), (64, 96)], marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_automodel_and_timm_compute_what_the_student_computes(
    tmp_path: Path, name: str, image_size: int | None, sizes: list[tuple[int, int]]
) -> None:
    student = exported(name, image_size)
    folder = write_portable(student, "huggingface", ImageSize(), tmp_path)
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    auto = transformers.AutoModel.from_pretrained(folder).eval()
    other = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    for height, width in sizes:
        pixels = torch.rand(2, 3, height, width)
        expected = student.student(pixels)
        normal = (pixels - student.student.mean) / student.student.std
        for backbone in (auto.timm_model, other):
            spatial, summary = timm_output(backbone, normal)
            assert torch.allclose(spatial, expected.spatial, atol=1e-5)
            assert torch.allclose(summary, expected.summaries[:, 0], atol=1e-5)
        found = auto(normal)
        assert torch.allclose(found.last_hidden_state, student.student.backbone.forward_features(normal), atol=1e-5)
        assert torch.allclose(found.pooler_output, student.student.backbone(normal), atol=1e-5)


def test_the_folder_says_how_pixels_are_normalised_and_where_the_student_is_from(tmp_path: Path) -> None:
    student = exported("test_vit")
    student.student.mean.fill_(0.25)
    folder = write_portable(student, "huggingface", ImageSize(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert (config["architecture"], config["model_args"]) == (
        "test_vit",
        {"dynamic_img_size": True, "img_size": 160},
    )
    assert (config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["input_size"]) == ([0.25] * 3, [3, 160, 160])
    card = (folder / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "transformers"\n')
    for line in (
        "# test_vit, distilled from dinov3, noise",
        "| dinov3 | ViT-7B | DINOv3 \\| License | 12 | none |",
        "| noise | ViT-7B: **random weights: a demonstration, not a teacher** | DINOv3 \\| License | 12 | none |",
        "| dinov3 | 1.235 | 1.500 | none |",
        "| low-128 | 7 | 2 |",
        "Recipe `demo`, 400 steps, seed 3, fp32, on these views:",
    ):
        assert line in card.splitlines()
    assert "is [1, 101, 64] (prefix tokens: 1, then 10 × 10 tokens), and" in card


@torch.no_grad()
def test_the_code_in_the_card_runs(tmp_path: Path) -> None:
    student = exported("test_vit")
    folder = write_portable(student, "huggingface", ImageSize(), tmp_path)
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"pixels": torch.rand(1, 3, 64, 96)}
    exec(code.replace("this folder", str(folder)), names)
    tokens = names["output"].last_hidden_state[:, 1:].unflatten(1, (4, 6))
    assert torch.allclose(tokens, student.student(names["pixels"]).spatial, atol=1e-5)


def test_what_automodel_does_not_know_or_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError) as refusal:
        write_portable(exported("radio_test_vit"), "huggingface", ImageSize(), tmp_path)
    assert str(refusal.value) == (
        "format huggingface cannot be used:\n  radio_test_vit: has RADIO's additions, which only RadioModel of "
        "transformers knows (choose the format radio; for other sizes than C-RADIO's, torch or onnx)"
    )
    save = safetensors.torch.save

    def renamed(state: dict[str, torch.Tensor], **settings: Any) -> bytes:
        return save({name.replace("norm.weight", "norm.gain"): value for name, value in state.items()}, **settings)

    monkeypatch.setattr(huggingface_folder.safetensors.torch, "save", renamed)
    with pytest.raises(ContractError, match=r"missing_keys: timm_model\.norm\.weight\n  unexpected_keys: .*norm\.gain"):
        write_portable(exported("test_vit"), "huggingface", ImageSize(), tmp_path)
    monkeypatch.setattr(
        huggingface_folder.safetensors.torch, "save", lambda state, **_: save({k: v * 1.01 for k, v in state.items()})
    )
    with pytest.raises(ContractError, match="last_hidden_state: differs from the student by"):
        write_portable(exported("test_vit"), "huggingface", ImageSize(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_export_replaces_the_files_and_the_config_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_portable(exported("test_vit"), "huggingface", ImageSize(), tmp_path)
    before = (folder / "config.json").read_bytes()
    (folder / "notes.txt").write_text("mine")
    given: list[str] = []

    whole = write.replace_whole

    def failing(temporary: Path, path: Path) -> None:
        given.append(path.name)
        if path.name == "config.json":
            raise OSError("the power goes")
        whole(temporary, path)

    monkeypatch.setattr(write, "replace_whole", failing)
    with pytest.raises(OSError, match="the power goes"):
        write_portable(exported("test_vit"), "huggingface", ImageSize(), tmp_path)
    assert given == ["model.safetensors", "README.md", "config.json"]
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "README.md", "notes.txt"}
    monkeypatch.undo()
    assert write_portable(exported("test_vit"), "huggingface", ImageSize(), tmp_path) == folder
    assert (folder / "config.json").read_bytes() == before
