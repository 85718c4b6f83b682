"""Students in other libraries' formats compute what they compute here, or are not written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, MissingError, SettingError
from trainer.__main__ import main
from trainer.export import ExportedStudent
from trainer.portable.image_size import ImageSize
from trainer.portable.write import named_outputs, write_portable
from trainer.run.train import train
from trainer.settings.config import TrainRecipe
from trainer.settings.student import VitSettings

ADDED = VitSettings(position_grid=8, registers=2, global_blocks=2, windows=(2,))
NAMES = [
    "spatial", "summaries", "any_spatial", "canvas_spatial", "fixed_spatial", "any_summary", "fixed_summary"
]  # fmt: skip


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


@pytest.fixture
def added(folders: dict[str, Path]) -> ExportedStudent:
    return trainer.load(folders["radio_test_vit"])


ANY = ImageSize()
SIZES = [(64, 96), (32, 48), (112, 64), (128, 128)]
"""Heights and widths (pixels), on the grid of positions and beyond it."""


@pytest.mark.parametrize(
    ("name", "size", "sides"),
    [
        pytest.param("test_vit", ANY, SIZES, marks=pytest.mark.slow),
        ("radio_test_vit", ANY, SIZES),
        ("radio_test_vit", ImageSize(height=64, width=96, window=2), [(64, 96)]),
    ],
)
@torch.no_grad()
def test_a_program_of_torch_gives_every_output_for_any_number_of_pictures_of_any_size(
    folders: dict[str, Path], tmp_path: Path, name: str, size: ImageSize, sides: list[tuple[int, int]]
) -> None:
    student = trainer.load(folders[name])
    path = write_portable(student, "torch", size, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["student.pt2"]
    program = torch.export.load(path).module()
    for count, (height, width) in [(1, sides[0]), *enumerate(sides, 2)]:
        pixels = torch.rand(count, 3, height, width)
        expected = named_outputs(student(pixels, window=size.window))
        assert list(expected) == NAMES
        for output, other in zip(expected.values(), program(pixels), strict=True):
            assert torch.allclose(output, other, atol=1e-4)


@pytest.mark.parametrize("window", [None, pytest.param(2, marks=pytest.mark.slow)])
@torch.no_grad()
def test_an_onnx_graph_gives_every_output_by_name_for_pictures_of_any_size(
    added: ExportedStudent, tmp_path: Path, window: int | None
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = write_portable(added, "onnx", ImageSize(window=window), tmp_path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count, (height, width) in enumerate([(64, 96), (128, 64), (160, 160)], 1):
        pixels = torch.rand(count, 3, height, width)
        found = session.run(NAMES, {"pixels": pixels.numpy()})
        expected = named_outputs(added(pixels, window=window))
        for name, other in zip(NAMES, found, strict=True):
            assert torch.allclose(expected[name], torch.from_numpy(other), atol=1e-4)


@pytest.mark.slow
def test_windows_that_torch_cannot_trace_at_every_size_are_refused(added: ExportedStudent, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"cannot be written for pictures of any size: AssertionError: Guard failed"):
        write_portable(added, "torch", ImageSize(window=2), tmp_path)  # it takes one picture for a special case
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_cannot_be_for_every_size_is_refused_with_what_to_do(
    added: ExportedStudent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise ValueError("a window\nof the tracer's")

    monkeypatch.setattr(torch.export, "export", lost)
    with pytest.raises(SettingError) as refusal:
        write_portable(added, "torch", ANY, tmp_path)
    assert str(refusal.value) == (
        "format torch cannot be used:\n  radio_test_vit: cannot be written for images of any size: "
        "ValueError: a window (choose one size with --height and --width)"
    )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingError) as refusal:
        write_portable(added, "torch", ImageSize(height=64), tmp_path)
    assert str(refusal.value) == (
        "image cannot be used:\n  --height and --width: only one of the two is given "
        "(give both, or neither for images of any size)"
    )


@torch.no_grad()
def test_timm_loads_a_backbone_that_is_as_it_builds_it(folders: dict[str, Path], tmp_path: Path) -> None:
    student = trainer.load(folders["test_vit"])
    path = write_portable(student, "timm", ImageSize(height=64, width=64), tmp_path)
    backbone = timm.create_model("test_vit", img_size=64, num_classes=0, checkpoint_path=str(path)).eval()
    pixels, own = torch.rand(2, 3, 64, 64), student.card["pixels"]
    mean, std = (torch.tensor(own[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    tokens = backbone.forward_features((pixels - mean) / std)[:, backbone.num_prefix_tokens :]
    assert torch.allclose(tokens.reshape(2, 4, 4, 64), student(pixels).student.spatial, atol=1e-5)


def test_additions_are_not_written_for_timm(added: ExportedStudent, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as refusal:
        write_portable(added, "timm", ImageSize(height=64, width=64), tmp_path)
    assert str(refusal.value) == (
        "format timm cannot be used:\n  radio_test_vit: has RADIO's additions, which timm cannot build "
        "(choose the format torch or onnx)"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_agree_with_the_student_is_not_kept(
    added: ExportedStudent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = torch.export.load

    def damaged(path: Path) -> torch.export.ExportedProgram:
        program = load(path)
        program.state_dict["student.model.heads.canvas_spatial.adaptor.last.bias"].data += 1
        return program

    monkeypatch.setattr(torch.export, "load", damaged)
    with pytest.raises(ContractError, match=r"format torch breaks .*\n  canvas_spatial: differs from the student by"):
        write_portable(added, "torch", ImageSize(height=64, width=64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_onnx_that_is_not_installed_is_named(
    added: ExportedStudent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MissingError) as refusal:
        write_portable(added, "onnx", ImageSize(height=64, width=64), tmp_path)
    assert str(refusal.value) == ("ONNX is missing:\n  onnxscript: is not installed (pip install 'stillhouse[onnx]')")


def test_the_command_line_writes_beside_the_student_and_refuses_in_one_message(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = f"--student {folders['radio_test_vit']}"
    assert main(f"export {student} --height 32 --width 64 --to {tmp_path}".split()) == 0
    assert capsys.readouterr().out == f"export: {tmp_path / 'student.pt2'}\n"
    assert main(f"export {student} --height 40 --width 64".split()) == 2
    assert capsys.readouterr().err == (
        "error: image cannot be used:\n  image of 40 × 64 px: its sides are not multiples of 16 px, the side "
        "of a token (choose another --height and --width)\n"
    )
    assert main(["export"]) == 2
    assert capsys.readouterr().err == (
        "error: student cannot be used:\n  --student: is not given (--student runs/…, the folder of a finished run)\n"
    )


def test_weights_of_the_timm_format_are_the_backbones_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    student = trainer.load(folders["test_vit"])
    path = write_portable(student, "timm", ImageSize(height=64, width=64), tmp_path)
    weights = safetensors.torch.load_file(path)
    assert weights.keys() == student.student.backbone.state_dict().keys()
