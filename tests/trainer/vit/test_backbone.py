"""A vision transformer with the additions is timm's with tokens and positions of its own, at any size, or refused."""

from dataclasses import replace

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from storage_schemas.format.errors import SettingError
from trainer.recipes.c_radio_v4 import c_radio_v4
from trainer.settings.student import VitSettings
from trainer.student.shape import StudentShape, measure_student
from trainer.student.student import Student
from trainer.student.vit.presets import PRESETS
from trainer.student.vit.windows import attend

SMALL = VitSettings(position_grid=8, registers=2, global_blocks=2)
TEACHERS = ("a", "b", "c")


def student(name: str = "radio_test_vit", settings: VitSettings = SMALL) -> Student:
    torch.manual_seed(0)
    return Student(name, vit=settings, summarised=TEACHERS).eval()


@pytest.mark.parametrize(
    ("name", "millions", "with_positions"),
    [
        # v2.5 table 8 counts the grid of positions, v4's abstract does not
        ("base", 86, 98),
        ("large", 303, 320),
        ("so400m", 412, 431),
        ("huge", 631, 652),
    ],
)
def test_presets_are_as_large_as_the_papers_say(name: str, millions: int, with_positions: int) -> None:
    with torch.device("meta"):
        backbone = Student(name, summarised=("siglip2", "dinov3")).backbone
    every = sum(parameter.numel() for parameter in backbone.parameters())
    assert round(every / 1e6) == with_positions
    assert round((every - backbone.positions.grid.numel()) / 1e6) == millions


def test_presets_have_patches_of_16_and_two_and_eight_tokens_ahead() -> None:
    for name, size in PRESETS.items():
        with torch.device("meta"):
            found = Student(name, summarised=("siglip2", "dinov3"))
        assert found.stride == 16
        assert found.backbone.positions.grid.shape == (size.channels, 128, 128)
        assert len(found.backbone.class_tokens) + len(found.backbone.registers) == 10


@pytest.mark.parametrize("final_norm", [False, True])
@torch.no_grad()
def test_it_is_timms_vision_transformer_with_several_class_tokens_and_a_grid_cut_to_size(final_norm: bool) -> None:
    ours = student("tiny", VitSettings(position_grid=4, registers=2, final_norm=final_norm))
    theirs = VisionTransformer(
        img_size=(64, 48), embed_dim=192, num_heads=3, no_embed_class=True, reg_tokens=4, num_classes=0, global_pool="",
        final_norm=final_norm,
    ).eval()  # fmt: skip
    state = {name: value for name, value in ours.backbone.state_dict().items() if name in theirs.state_dict()}
    tokens = torch.cat([ours.backbone.class_tokens, ours.backbone.registers])[None]
    state |= {"cls_token": tokens[:, :1], "reg_token": tokens[:, 1:], "patch_embed.proj.bias": torch.zeros(192)}
    state["pos_embed"] = ours.backbone.positions.grid[:, :, :3].flatten(1).T[None]
    theirs.load_state_dict(state)
    pixels = torch.rand(2, 3, 64, 48)
    expected = theirs.forward_features((pixels - ours.mean) / ours.std)
    output = ours(pixels)
    assert torch.allclose(output.summaries, expected[:, :3], atol=1e-5)
    assert torch.allclose(output.spatial, expected[:, 5:].reshape(2, 4, 3, 192), atol=1e-5)


@torch.no_grad()
def test_timms_own_norms_and_statistics_are_kept() -> None:
    ours = student("radio_vit_xsmall_patch16_clip_224")
    theirs = timm.create_model("vit_xsmall_patch16_clip_224", pretrained=False)
    assert isinstance(ours.backbone.norm_pre, type(theirs.norm_pre))
    assert ours.mean.flatten().tolist() == pytest.approx(theirs.pretrained_cfg["mean"])
    pixels = torch.rand(1, 3, 32, 32)
    patches = ours.backbone.patch_embed((pixels - ours.mean) / ours.std) + ours.backbone.positions(2, 2, None)
    prefix = torch.cat([ours.backbone.class_tokens, ours.backbone.registers])[None]
    tokens = ours.backbone.norm_pre(torch.cat([prefix, patches.flatten(1, 2)], dim=1))
    for block in ours.backbone.blocks:
        tokens = block(tokens)
    assert torch.allclose(ours(pixels).spatial, tokens[:, 5:].reshape(1, 2, 2, -1), atol=1e-5)


@torch.no_grad()
def test_windows_leave_out_nothing_but_attention_between_them() -> None:
    ours, pixels = student(), torch.rand(2, 3, 64, 96)
    backbone = ours.backbone
    patches = backbone.patch_embed((pixels - ours.mean) / ours.std) + backbone.positions(4, 6, None)
    prefix = torch.cat([backbone.class_tokens, backbone.registers]).expand(2, -1, -1)
    before, seen = attend(list(backbone.blocks), [False, False, True] * 2, prefix, patches, 2, "apart")
    output = ours(pixels, window=2)
    assert torch.equal(output.spatial, seen)
    assert torch.equal(output.summaries, before[:, :3])
    assert not torch.allclose(output.spatial, ours(pixels).spatial, atol=1e-3)


def test_every_teacher_with_a_summary_has_a_class_token_and_every_parameter_a_gradient() -> None:
    for policy in ("apart", "copied"):
        settings = VitSettings(position_grid=8, registers=2, global_blocks=2, window_tokens=policy)
        model = student(settings=settings).train()
        assert [model.summary_slot(name) for name in TEACHERS] == [0, 1, 2]
        uniforms = torch.rand(2, 5)
        uniforms[:, 4] = 0.5
        output = model(torch.rand(2, 3, 64, 64), window=2, uniforms=uniforms)
        assert output.summaries.shape == (2, 3, 64)
        (output.spatial.square().sum() + output.summaries.square().sum()).backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_c_radio_v4_has_the_tokens_of_the_published_weights() -> None:
    recipe = c_radio_v4()
    with torch.device("meta"):
        backbone = Student(recipe.student, vit=recipe.vit, summarised=("dinov3", "siglip2")).backbone
    tokens = (len(backbone.class_tokens), backbone.summaries, len(backbone.registers))
    assert tokens == (3, 2, 7)  # `RadioConfig` of transformers has these defaults, and `summary_idxs` [0, 1]


@torch.no_grad()
def test_spare_class_tokens_take_part_but_are_no_summaries() -> None:
    ours, pixels = student(settings=replace(SMALL, registers=0, spare_class_tokens=2)), torch.rand(2, 3, 32, 32)
    for weight in ours.backbone.blocks.parameters():
        weight *= 1 if weight.ndim == 1 else 10  # new blocks hardly change their tokens
    assert len(ours.backbone.class_tokens) == 5
    before = ours(pixels).summaries
    assert before.shape == (2, 3, 64)
    ours.backbone.class_tokens[:] = ours.backbone.class_tokens[[1, 0, 2, 4, 3]]
    assert torch.allclose(ours(pixels).summaries, before[:, [1, 0, 2]], atol=1e-5)  # the spare ones changed places
    ours.backbone.class_tokens[4] *= -1
    assert not torch.allclose(ours(pixels).summaries, before[:, [1, 0, 2]], atol=1e-3)


def test_a_student_whose_teachers_have_no_summary_has_no_class_token() -> None:
    model = Student("radio_test_vit", vit=VitSettings(position_grid=8, registers=0, global_blocks=2))
    output = model(torch.rand(2, 3, 32, 32))
    assert (output.spatial.shape, output.summaries.shape) == ((2, 2, 2, 64), (2, 0, 64))


def test_positions_are_drawn_only_from_the_draws_given() -> None:
    model, pixels, uniforms = student(), torch.rand(2, 3, 32, 32), torch.rand(2, 5)
    uniforms[:, 4] = 0.5
    assert torch.equal(model.train()(pixels).spatial, model.eval()(pixels).spatial)
    first, again = model(pixels, uniforms=uniforms).spatial, model(pixels, uniforms=uniforms).spatial
    assert torch.equal(first, again)
    swapped = model(pixels, uniforms=uniforms.flip(0)).spatial
    assert not torch.allclose(first, swapped, atol=1e-3)


def test_sizes_of_the_outputs_are_known_without_a_look() -> None:
    model = student()
    shape = measure_student(model, [32, 64])
    assert shape == StudentShape(channels=64, summary_channels=64, tokens={32: 2, 64: 4})
    output = model(torch.rand(1, 3, 64, 64))
    assert (output.spatial.shape, output.summaries.shape) == ((1, 4, 4, 64), (1, 3, 64))


def test_positions_and_tokens_ahead_do_not_decay() -> None:
    backbone = student().backbone
    assert backbone.no_weight_decay() == {"positions.grid", "class_tokens", "registers"}
    assert backbone.no_weight_decay() <= {name for name, _ in backbone.named_parameters()}


@pytest.mark.parametrize(
    ("height", "width", "window", "said"),
    [
        (
            40, 64, None,
            "image cannot be used:\n  image of 40 × 64 px: its sides are not multiples of the patch, 16 px "
            "(resize it, or pad it)",
        ),
        (
            64, 96, 4,
            "window cannot be used:\n"
            "  image of 64 × 96 px: 4 × 6 tokens cannot be divided into windows of 4 × 4 tokens "
            "(resize or pad it to multiples of window × patch, or choose another window)",
        ),
    ],
)  # fmt: skip
def test_an_image_that_does_not_divide_is_refused(height: int, width: int, window: int | None, said: str) -> None:
    with pytest.raises(SettingError) as refusal:
        student()(torch.rand(1, 3, height, width), window=window)
    assert str(refusal.value) == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"name": "radio_resnet18"},
            "student cannot be used:\n  radio_resnet18: resnet18 does not take them: TypeError: ",
        ),
        (
            {"name": "radio_vit_tiny_r_s16_p8_224"},
            "student cannot be used:\n  radio_vit_tiny_r_s16_p8_224: vit_tiny_r_s16_p8_224 is a VisionTransformer with "
            "HybridEmbed (only plain vision transformers of timm take RADIO's additions; use vit_tiny_r_s16_p8_224 "
            "without them)",
        ),
        (
            {"name": "radio_vit_tinny_patch16_224"},
            "student cannot be used:\n"
            "  vit_tinny_patch16_224: is not a timm model (similar names: vit_tiny_patch16_224, ",
        ),
        (
            {"name": "radio_test_vit", "vit": VitSettings(global_blocks=7)},
            "vit cannot be used:\n"
            "  vit.global_blocks: 7 blocks should have global attention; radio_test_vit has 6 blocks",
        ),
        (
            {"name": "tiny", "image_size": 256},
            "student cannot be used:\n  image_size: tiny has a position grid for all sizes "
            "(drop image_size, or set vit.position_grid)",
        ),
        (
            {"name": "test_vit", "vit": VitSettings(registers=4, windows=(6,))},
            "student cannot be used:\n"
            "  vit.registers: has no effect on test_vit, which is as timm builds it "
            "(leave it at its default, or choose a preset or radio_test_vit)\n"
            "  vit.windows: has no effect on test_vit, which is as timm builds it "
            "(leave it at its default, or choose a preset or radio_test_vit)",
        ),
    ],
)
def test_a_student_that_cannot_have_the_additions_is_refused(arguments: dict, said: str) -> None:
    with pytest.raises(SettingError) as refusal:
        Student(**arguments)
    assert str(refusal.value).startswith(said)


def test_a_window_that_divides_no_resolution_of_the_run_is_refused() -> None:
    model = student(settings=VitSettings(position_grid=8, global_blocks=2, windows=(2, 3, 5)))
    with pytest.raises(SettingError) as refusal:
        measure_student(model, [32, 64, 80])
    fix = "leave it out of vit.windows; the tokens along a side are 2 (32 px), 4 (64 px), 5 (80 px)"
    assert str(refusal.value) == (
        "vit.windows cannot be used:\n"
        f"  window of 3 tokens: does not divide the tokens of any resolution of this run into several windows ({fix})\n"
        f"  window of 5 tokens: does not divide the tokens of any resolution of this run into several windows ({fix})"
    )


def test_a_resolution_that_does_not_divide_into_patches_is_refused() -> None:
    with pytest.raises(SettingError) as refusal:
        measure_student(student(), [40, 64])
    assert str(refusal.value) == (
        "student cannot be used:\n"
        "  radio_test_vit at 40 px: 40 is not a multiple of 16, the side of its tokens (px)\n"
        "  what to do: choose another student, or leave these view sets out with data.proportions"
    )
