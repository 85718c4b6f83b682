"""A student stands in for SAM3's image trunk: the same masks where it computes the same function, at any patch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, final

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from storage_schemas.format.errors import SettingError
from trainer.export import ExportedStudent
from trainer.portable.image_size import ImageSize
from trainer.portable.sam3_adapters import Sam3Trunk, load_tokens, replace_trunk
from trainer.portable.sam3_trunk import Sam3Tokens
from trainer.portable.write import write_portable
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.model import DistilledModel, TeacherShape
from trainer.student.shape import StudentShape
from trainer.student.student import Student
from trainer.student.vit.backbone import VitBackbone
from trainer.student.vit.build import _BARE

transformers = pytest.importorskip("transformers")
ONE_LAYER = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_layers": 1}


def tiny_sam3(side: int = 56, patch: int = 14) -> Any:
    """A tiny SAM3 of transformers on random weights, whose trunk has windows and global blocks."""
    torch.manual_seed(0)
    trunk = {
        "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": side, "patch_size": patch, "window_size": 2,
        "global_attn_indexes": [1], "pretrain_image_size": 2 * patch,
    }  # fmt: skip
    text = {
        "model_type": "clip_text_model", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64,
        "projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    config = transformers.Sam3Config(
        vision_config={"backbone_config": trunk, "fpn_hidden_size": 32},
        text_config=text,
        geometry_encoder_config=ONE_LAYER,
        detr_encoder_config=ONE_LAYER,
        detr_decoder_config=ONE_LAYER | {"num_queries": 5},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    sam3 = transformers.Sam3Model(config).eval()
    for weight in sam3.parameters():
        if weight.ndim > 1:  # fresh weights are so small that masks hardly depend on the images
            weight.data = torch.randn(weight.shape) / weight[0].numel() ** 0.5
    return sam3


@final
class TrunkAsTimm(nn.Module):
    """SAM3's own trunk with the methods of a timm backbone."""

    def __init__(self, trunk: Any, patch: int) -> None:
        super().__init__()
        self.trunk, self.feature_info = trunk, [{"reduction": patch}]

    def forward_intermediates(self, pixels: Tensor, **_: Any) -> tuple[Tensor, list[Tensor]]:
        """Return the map, channels first."""
        rows, columns = (side // self.feature_info[0]["reduction"] for side in pixels.shape[2:])
        tokens = self.trunk(pixels).last_hidden_state
        return tokens, [tokens.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)]

    def forward_head(self, tokens: Tensor, **_: Any) -> Tensor:
        """Return a summary, which nobody uses."""
        return tokens.mean(dim=1)


def exported(student: Student, channels: int) -> ExportedStudent:
    shape, teacher = (
        StudentShape(channels=32, summary_channels=32, tokens={}),
        TeacherShape(dim=channels, summary_dim=None),
    )
    model = DistilledModel(student, shape, {"sam3": teacher}, HeadSettings(width=64))
    card = {"teachers": {"sam3": {"channels": channels, "licence": "SAM License"}}, "image_size": None}
    return ExportedStudent(model, card).eval()


def same_function(sam3: Any, patch: int = 14) -> ExportedStudent:
    """A student whose head for SAM3 is SAM3's trunk."""
    student = Student("test_vit", 64)
    student.backbone = TrunkAsTimm(sam3.vision_encoder.backbone, patch)
    student.mean, student.std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.5)
    found = exported(student, 32)
    found.heads["sam3_spatial"] = nn.Identity()
    return found


def vit_student(patch: int) -> ExportedStudent:
    """A small vision transformer with RADIO's additions, which gives 1024 channels."""
    torch.manual_seed(0)
    trunk = VisionTransformer(patch_size=patch, embed_dim=32, depth=2, num_heads=2, **_BARE)
    student = Student("radio_test_vit")
    student.backbone = VitBackbone(trunk, VitSettings(position_grid=16, registers=1, global_blocks=1), 1)
    return exported(student, 1024)


LONG_CASES = ((16, 1152, 12), (16, 1152, None), (14, 1008, None))
"""Patch (px), side (px) and window (tokens)."""
IMAGES = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(1)) * 2 - 1
WORDS = torch.tensor([[1, 5, 9, 2], [1, 7, 3, 2]])


@torch.no_grad()
def test_masks_are_those_of_sam3_where_the_student_computes_the_function_of_its_trunk() -> None:
    sam3 = tiny_sam3()
    before = sam3(pixel_values=IMAGES, input_ids=WORDS)
    assert float(before.pred_masks.std()) > 0.1
    replace_trunk(sam3, tokens := Sam3Tokens(same_function(sam3)))
    tokens.side = 56
    after = sam3(pixel_values=IMAGES, input_ids=WORDS)
    for name in ("pred_masks", "pred_boxes", "pred_logits", "semantic_seg"):
        assert torch.allclose(before[name], after[name], atol=1e-4), name
    moved = sam3(pixel_values=IMAGES + 0.1, input_ids=WORDS)
    assert not torch.allclose(before.pred_masks, moved.pred_masks, atol=1e-4)


@torch.no_grad()
def test_a_neck_of_another_patch_takes_the_students_grid_once_the_trunk_is_replaced() -> None:
    sam3, student = tiny_sam3(), Student("test_vit", 64)
    found = exported(student, 32)
    found.heads["sam3_spatial"] = nn.Linear(64, 32)
    replace_trunk(sam3, Sam3Tokens(found))
    encoded = sam3.vision_encoder(torch.rand(1, 3, 112, 128) * 2 - 1)  # 7 × 8 tokens in patches of 16
    assert [tuple(level.shape[2:]) for level in encoded.fpn_hidden_states] == [(28, 32), (14, 16), (7, 8), (3, 4)]
    found.card["teachers"]["sam3"]["channels"] = 48
    with pytest.raises(ValueError, match="the neck of this model takes 32 channels, the student has 48"):
        replace_trunk(sam3, Sam3Tokens(found))


@pytest.mark.parametrize(
    ("patch", "side", "window"),
    [(16, 1152, 8), *(pytest.param(*case, marks=pytest.mark.slow) for case in LONG_CASES)],
)
@torch.no_grad()
def test_the_program_gives_72_by_72_tokens_to_both_codes_in_either_patch(
    tmp_path: Path, patch: int, side: int, window: int | None
) -> None:
    student = vit_student(patch)
    folder = write_portable(student, "sam3", ImageSize(window=window), tmp_path)
    assert {file.name for file in folder.iterdir()} == {"trunk.pt2", "trunk.json", "sam3_adapters.py"}
    tokens, images = load_tokens(folder), torch.rand(1, 3, side, side) * 2 - 1
    [found] = (meta := Sam3Trunk(tokens))(images)
    assert (meta.channel_list, found.shape, found.dtype) == ([1024], (1, 1024, 72, 72), torch.float32)
    expected = student(images / 2 + 0.5, window=window).spatial["sam3"]
    assert torch.allclose(found.permute(0, 2, 3, 1), expected, atol=1e-4)
    with pytest.raises(ValueError, match=rf"\[batch, 3, {side}, {side}\]; the images are \[1, 3, 512, 512\]: resize"):
        tokens(images[:, :, :512, :512])
    with torch.autocast("cpu", torch.bfloat16):
        [mixed] = Sam3Trunk(tokens)(images)
    [half] = Sam3Trunk(tokens.eval().to(torch.bfloat16))(images)
    assert half.dtype == torch.bfloat16
    for rounded in (mixed, half):
        assert float((rounded.float() - found).abs().max() / found.abs().max()) < 0.05


@torch.no_grad()
def test_windows_of_16_fit_other_sizes_and_are_refused_at_72_tokens(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="72 × 72 tokens cannot be divided into windows of 16 × 16 tokens"):
        write_portable(vit_student(16), "sam3", ImageSize(window=16), tmp_path)
    folder = write_portable(vit_student(16), "sam3", ImageSize(height=256, width=256, window=16), tmp_path)
    assert load_tokens(folder)(torch.zeros(3, 3, 256, 256)).shape == (3, 16, 16, 1024)
    assert json.loads((folder / "trunk.json").read_text())["side"] == 256
    with pytest.raises(SettingError, match=r"image of 512 × 256 px \(SAM3 takes square images\)"):
        write_portable(vit_student(16), "sam3", ImageSize(height=512, width=256), tmp_path)


def test_a_student_of_other_teachers_is_refused(tmp_path: Path) -> None:
    student = vit_student(16)
    student.card["teachers"] = {"dinov3": {}, "siglip2": {}}
    with pytest.raises(SettingError) as refusal:
        write_portable(student, "sam3", ImageSize(), tmp_path)
    assert str(refusal.value) == (
        "format sam3 cannot be used:\n  radio_test_vit: has no teacher sam3, but dinov3, siglip2 "
        "(export a student that learnt from it)"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_folder_works_without_our_code(tmp_path: Path) -> None:
    folder = write_portable(vit_student(16), "sam3", ImageSize(height=64, width=64), tmp_path)
    program = (
        "import sys, torch; from sam3_adapters import load_tokens, Sam3Trunk\n"
        "print(*Sam3Trunk(load_tokens('.'))(torch.zeros(1, 3, 64, 64))[0].shape)\n"
        "print(*({'trainer', 'storage_schemas'} & {name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout == "1 1024 4 4\n\n"
