"""Students: any timm backbone gives square tokens and a summary at every resolution of a run, or is refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from storage_schemas.format.errors import SettingError
from trainer.student.shape import StudentShape, measure_student
from trainer.student.student import Student


@pytest.mark.parametrize(
    ("name", "resolutions", "shape"),
    [
        ("test_vit", [64, 96], StudentShape(channels=64, summary_channels=64, tokens={64: 4, 96: 6})),
        ("test_convnext", [64, 96], StudentShape(channels=64, summary_channels=64, tokens={64: 2, 96: 3})),
        # its classifier's features are wider than its map
        ("test_efficientnet", [64, 96], StudentShape(channels=64, summary_channels=256, tokens={64: 2, 96: 3})),
        # a hierarchical one with windows of 7 tokens, at sizes that these do not divide
        (
            "swin_tiny_patch4_window7_224",
            [64, 96],
            StudentShape(channels=768, summary_channels=768, tokens={64: 2, 96: 3}),
        ),
    ],
)
def test_families_of_backbones_give_tokens_and_a_summary_at_every_resolution(
    name: str, resolutions: list[int], shape: StudentShape
) -> None:
    student = Student(name).eval()
    assert measure_student(student, resolutions) == shape
    with torch.no_grad():
        output = student(torch.rand(2, 3, resolutions[1], resolutions[0]))
    assert output.spatial.shape == (2, shape.tokens[resolutions[1]], shape.tokens[resolutions[0]], shape.channels)
    assert output.summaries.shape == (2, 1, shape.summary_channels)


def test_tokens_lie_in_the_picture_as_its_pixels_do() -> None:
    student = Student("test_convnext").eval()
    pixels = torch.zeros(1, 3, 128, 128)
    with torch.no_grad():
        before = student(pixels).spatial
        pixels[..., 96:, :32] = 1  # bottom left
        change = (student(pixels).spatial - before).norm(dim=3)[0]
    assert change.argmax() == 12  # first of the fourth row of four


def test_normalisation_with_the_backbones_own_statistics_is_inside() -> None:
    student = Student("test_vit").eval()
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(student.backbone.pretrained_cfg[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        features = student.backbone.forward_features((pixels - mean) / std)
        output = student(pixels)
    tokens = features[:, student.backbone.num_prefix_tokens :].reshape(1, 4, 4, 64)
    assert torch.allclose(output.spatial, tokens, atol=1e-6)


def test_a_student_that_was_measured_is_in_the_mode_it_was_in() -> None:
    for training in (True, False):
        student = Student("test_vit").train(training)
        measure_student(student, [64])
        assert student.training is training


def test_an_unknown_student_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(SettingError) as refusal:
        Student("vit_tinny_patch16_224")
    [problem] = refusal.value.problems
    assert (problem.place, problem.found) == ("vit_tinny_patch16_224", "is not a timm model")
    assert problem.fix.startswith("similar names: vit_tiny_patch16_224, ")


def test_the_beginning_of_a_name_is_answered_with_the_names_that_begin_so() -> None:
    with pytest.raises(SettingError) as refusal:
        Student("vit_tiny")
    [problem] = refusal.value.problems
    names = problem.fix.removeprefix("similar names: ").split(", ")
    assert "vit_tiny_patch16_224" in names
    assert all(name.startswith("vit_tiny") for name in names)


def test_a_student_whose_patch_does_not_divide_a_resolution_is_refused_for_each() -> None:
    with pytest.raises(SettingError) as refusal:
        measure_student(Student("vit_tiny_patch16_224"), [40, 64, 24])
    assert str(refusal.value) == (
        "student cannot be used:\n"
        "  vit_tiny_patch16_224 at 24 px: 24 is not a multiple of 16, the side of its tokens (px)\n"
        "  vit_tiny_patch16_224 at 40 px: 40 is not a multiple of 16, the side of its tokens (px)\n"
        "  what to do: choose another student, or leave these view sets out with data.proportions"
    )


def test_a_backbone_that_cannot_take_a_size_is_refused_with_its_own_words() -> None:
    with pytest.raises(SettingError) as refusal:
        measure_student(Student("test_maxvit"), [64])
    assert refusal.value.problems[0].place == "test_maxvit at 64 px"
    assert refusal.value.problems[0].found.startswith("the backbone does not support this size: AssertionError: ")


def test_a_position_table_is_laid_out_for_the_size_asked_for_and_only_where_there_is_one() -> None:
    assert Student("test_vit", image_size=64).backbone.pos_embed.shape[1] - 1 == 16
    with pytest.raises(SettingError) as refusal:
        Student("test_convnext", image_size=64)
    [problem] = refusal.value.problems
    assert "img_size" in problem.found
    assert problem.fix == "drop image_size"


def test_teachers_share_the_summary_of_a_backbone_without_class_tokens_for_each() -> None:
    student = Student("test_convnext", summarised=("a", "b")).eval()
    assert (student.summary_slot("a"), student.summary_slot("b"), student.stride) == (0, 0, 32)


def test_a_backbone_as_timm_builds_it_draws_nothing_and_has_no_windows() -> None:
    student = Student("test_vit").eval()
    pixels = torch.rand(1, 3, 64, 64)
    assert student.draw_window(64, (0,)) is None
    assert torch.equal(student(pixels, uniforms=torch.rand(1, 5)).spatial, student(pixels).spatial)
    with pytest.raises(SettingError) as refusal:
        student(pixels, window=2)
    assert str(refusal.value) == (
        "window cannot be used:\n  test_vit: cannot attend in windows of 2 tokens "
        "(only vision transformers with RADIO's additions have windows)"
    )


def test_a_family_whose_last_map_has_no_norm_of_its_own_learns_from_that_map() -> None:
    student = Student("hiera_tiny_224", image_size=64).eval()
    assert measure_student(student, [64]) == StudentShape(channels=768, summary_channels=768, tokens={64: 2})
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        output = student(pixels)
        _, [expected] = student.backbone.forward_intermediates(
            (pixels - student.mean) / student.std, indices=1, output_fmt="NHWC"
        )
    assert torch.equal(output.spatial, expected)


@pytest.mark.parametrize("name", ["hiera_tiny_224", "beit_base_patch16_224", "levit_128s"])
def test_a_family_of_one_size_is_refused_for_another_with_its_reason_and_built_for_it_when_asked(name: str) -> None:
    with pytest.raises(SettingError) as refusal:
        measure_student(Student(name), [128])
    size, advice = refusal.value.problems
    assert size.place == f"{name} at 128 px"
    assert "match" in size.found  # 128 px against the 224 px of its positions
    assert "norm" not in size.found
    assert advice.found == (
        "for a run of one resolution, set image_size to it; else choose another student, or leave these view sets out "
        "with data.proportions"
    )
    assert measure_student(Student(name, image_size=128), [128]).tokens[128] in (2, 4, 8)


def map_of_pit(backbone: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The last stage's map. Its class token is all that `forward_features` returns."""
    kept = list[torch.Tensor]()
    hook = backbone.transformers[-1].register_forward_hook(lambda *call: kept.append(call[-1][0]))
    assert backbone.forward_features(pixels).shape[1] == 1
    hook.remove()
    return kept[0].permute(0, 2, 3, 1)


def map_of_coat(backbone: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The last of three lists of tokens, without the class token."""
    return backbone.forward_features(pixels)[-1][:, 1:].unflatten(1, (2, 2))


def map_of_efficientvim(backbone: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The last of four lists of tokens, whose width is not `num_features`."""
    assert backbone.num_features != 320
    return backbone.forward_features(pixels)[-1].unflatten(2, (2, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("name", "image_size", "side", "expected", "channels"),
    [
        ("pit_ti_224", 64, 64, map_of_pit, 256),
        ("coat_tiny", 64, 64, map_of_coat, 152),
        ("efficientvim_m1", None, 128, map_of_efficientvim, 320),
    ],
)
@torch.no_grad()
def test_a_family_with_several_maps_gives_its_last_one(
    name: str,
    image_size: int | None,
    side: int,
    expected: Callable[[Any, torch.Tensor], torch.Tensor],
    channels: int,
) -> None:
    student = Student(name, image_size=image_size).eval()
    shape = measure_student(student, [side])
    assert (shape.channels, shape.tokens) == (channels, {side: 2})
    pixels = torch.rand(2, 3, side, side)
    found = student(pixels).spatial
    assert torch.equal(found, expected(student.backbone, (pixels - student.mean) / student.std))


def test_a_family_with_two_token_grids_is_refused_by_name() -> None:
    with pytest.raises(SettingError) as refusal:
        Student("crossvit_tiny_240")
    assert str(refusal.value) == (
        "student cannot be used:\n  crossvit_tiny_240: has two token grids, of different sizes, and no single map of "
        "its tokens (choose another family)"
    )
