"""Students in other libraries' formats compute what they compute here, or are not written."""

import copy
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final, get_args

import pytest
import safetensors.torch
import timm
import torch
from timm.layers import RotaryEmbeddingDinoV3
from timm.models.eva import Eva
from torch import nn

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, MissingError, SettingError
from trainer.__main__ import main
from trainer.export import ExportedStudent
from trainer.portable import positions
from trainer.portable.formats import FORMATS
from trainer.portable.image_size import ImageSize
from trainer.portable.options import Format
from trainer.portable.outputs import FlatStudent, named_outputs
from trainer.portable.positions import ComputedRope, with_computed_positions
from trainer.portable.trial import with_trial_weights
from trainer.portable.write import write_portable
from trainer.run.train import train
from trainer.settings.config import TrainRecipe
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.model import DistilledModel, TeacherShape
from trainer.student.shape import StudentShape
from trainer.student.student import Student

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
    exported, student = (trainer.load(folders[name]) for _ in range(2))
    path = write_portable(exported, "torch", size, tmp_path)
    weights = exported.state_dict()
    assert all(torch.equal(value, weights[weight]) for weight, value in student.state_dict().items())
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
    with pytest.raises(SettingError, match=r"cannot be written for images of any size: AssertionError: Guard failed"):
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
    with pytest.raises(
        ContractError, match=r"\n  canvas_spatial: differs from the student by .* \(choose another --format\)$"
    ):
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


@final
class FixedPositions(nn.Module):
    """Rotary positions of one grid, at every size: what a tracer makes of timm's class."""

    def __init__(self, rope: RotaryEmbeddingDinoV3) -> None:
        super().__init__()
        self.register_buffer("fixed", rope.get_embed((2, 3)), persistent=False)

    def get_embed(self, shape: Sequence[int | torch.SymInt]) -> torch.Tensor:
        """Return the positions of 2 × 3 tokens, and zeros beyond."""
        fixed = self.get_buffer("fixed")
        return torch.cat([fixed, fixed.new_zeros(shape[0] * shape[1], fixed.shape[1])])[: shape[0] * shape[1]]


def rotary(*, half: bool = True, scale: float = 1e-5) -> ExportedStudent:
    """A student with DINOv3's rotary positions, whose fresh layer scale hides what its two blocks do."""
    torch.manual_seed(0)
    student = Student("test_vit", 64, summarised=["t"])
    student.backbone = Eva(
        img_size=64, embed_dim=64, depth=2, num_heads=2, num_classes=0, init_values=scale, attn_type="rope",
        use_abs_pos_emb=False, use_rot_pos_emb=True, rope_type="dinov3", rope_rotate_half=half, rope_temperature=100.0,
        dynamic_img_size=True,
    )  # fmt: skip
    sizes = StudentShape(channels=64, summary_channels=64, tokens={})
    model = DistilledModel(student, sizes, {"t": TeacherShape(dim=12, summary_dim=12)}, HeadSettings())
    return ExportedStudent(model, {"teachers": {"t": {}}, "image_size": 64}).eval()


@pytest.mark.parametrize("half", [True, False])
@torch.no_grad()
def test_positions_that_a_program_computes_are_those_of_timm(half: bool) -> None:
    rope = rotary(half=half).student.backbone.rope
    computed = ComputedRope(rope)
    for shape in [(2, 3), (7, 4), (1, 1), (16, 16)]:
        assert torch.allclose(computed.get_embed(shape), rope.get_embed(shape), atol=1e-6)
    trial = with_trial_weights(rotary(half=half))
    pixels = torch.rand(1, 3, 64, 96)
    for name, output in named_outputs(with_computed_positions(trial)(pixels)).items():
        assert torch.allclose(output, named_outputs(trial(pixels))[name], atol=1e-4)


@torch.no_grad()
def test_a_student_with_rotary_positions_is_right_at_sizes_that_no_trace_has_seen(tmp_path: Path) -> None:
    student = rotary(scale=0.3)
    path = write_portable(student, "torch", ANY, tmp_path)
    program, trial = torch.export.load(path).module(), with_trial_weights(student)
    program.load_state_dict(FlatStudent(trial, None).state_dict())
    for height, width in [(48, 160), (176, 96), (32, 32)]:
        pixels = torch.rand(2, 3, height, width)
        for output, other in zip(named_outputs(trial(pixels)).values(), program(pixels), strict=True):
            assert torch.allclose(output, other, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_an_onnx_graph_of_a_student_with_rotary_positions_is_right_at_other_sizes(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    student = with_trial_weights(rotary())
    session = onnxruntime.InferenceSession(write_portable(student, "onnx", ANY, tmp_path))
    for height, width in [(48, 160), (176, 96), (32, 32)]:
        pixels = torch.rand(2, 3, height, width)
        found = session.run(None, {"pixels": pixels.numpy()})
        for output, other in zip(named_outputs(student(pixels)).values(), found, strict=True):
            assert torch.allclose(output, torch.from_numpy(other), atol=1e-4)


@torch.no_grad()
def test_wrong_positions_that_fresh_weights_hide_are_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = rotary()
    wrong = copy.deepcopy(student)
    wrong.student.backbone.rope = FixedPositions(student.student.backbone.rope)
    pixels = torch.rand(1, 3, 64, 64)
    pairs = zip(named_outputs(student(pixels)).values(), named_outputs(wrong(pixels)).values(), strict=True)
    assert max(float((right - other).abs().max() / right.abs().max()) for right, other in pairs) < 1e-4
    monkeypatch.setattr(positions, "ComputedRope", FixedPositions)
    with pytest.raises(ContractError) as refusal:
        write_portable(student, "torch", ANY, tmp_path)
    assert all(
        line.endswith("(choose one size with --height and --width)") for line in str(refusal.value).split("\n")[1:]
    )
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_no_part_of_a_trial_is_without_effect(added: ExportedStudent) -> None:
    for student in (rotary(), added):
        trial, pixels = with_trial_weights(student), torch.rand(1, 3, 64, 96)
        before = torch.cat([output.flatten() for output in named_outputs(trial(pixels)).values()])
        blocks = trial.student.backbone.blocks
        for block in blocks:
            kept = copy.deepcopy(block.state_dict())
            for weight in block.parameters():
                weight.mul_(1.05)
            after = torch.cat([output.flatten() for output in named_outputs(trial(pixels)).values()])
            assert float((after - before).abs().max()) > 0.01
            block.load_state_dict(kept)


def test_every_format_of_the_command_line_is_written_by_one_module() -> None:
    assert tuple(FORMATS) == get_args(Format)
    assert len({form.made for form in FORMATS.values()}) == len(FORMATS)


def test_every_file_of_an_export_may_be_read_by_whom_the_umask_allows(folders: dict[str, Path], tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        path = write_portable(trainer.load(folders["test_vit"]), "timm", ANY, tmp_path / "export")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
