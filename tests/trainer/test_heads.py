"""Heads, written out layer by layer."""

import pytest
import torch
from torch import nn

from storage_schemas.format.errors import SettingError
from trainer.settings.student import HeadSettings, VitSettings, read_head_settings
from trainer.student.heads import AdaptorHead, TokenHead
from trainer.student.model import DistilledModel, TeacherShape, summarised
from trainer.student.shape import StudentShape
from trainer.student.student import Student


def linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def normed(layer: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = (centred.square().mean(dim=-1, keepdim=True) + layer.eps).sqrt()
    return centred / deviation * layer.weight + layer.bias


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def test_a_head_is_linear_inner_blocks_norm_gelu_linear() -> None:
    head = AdaptorHead(5, 3, HeadSettings(width=8, inner_blocks=2))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
        x = torch.randn(2, 4, 4, 5)
        hidden = linear(head.first, x)
        for block in head.inner:
            norm, _, step = block.step  # type: ignore[union-attr]
            hidden = hidden + linear(step, gelu(normed(norm, hidden)))
        expected = linear(head.last, gelu(normed(head.between[0], hidden)))  # type: ignore[arg-type]
        assert torch.allclose(head(x), expected, atol=1e-4)


def test_a_fresh_head_has_no_last_bias() -> None:
    assert not AdaptorHead(5, 3, HeadSettings(width=8)).last.bias.any()


def test_a_model_has_a_head_for_tokens_and_one_for_a_summary_where_there_is_one() -> None:
    shape = StudentShape(channels=64, summary_channels=64, tokens={64: 4})
    # "type" and "forward" are names of a module's own
    teachers = {"type": TeacherShape(dim=7, summary_dim=5), "forward": TeacherShape(dim=3, summary_dim=None)}
    model = DistilledModel(Student("test_vit"), shape, teachers, HeadSettings(width=8)).eval()
    output = model(torch.rand(2, 3, 64, 64), ["type", "forward"])
    assert {name: tuple(tokens.shape) for name, tokens in output.spatial.items()} == {
        "type": (2, 4, 4, 7),
        "forward": (2, 4, 4, 3),
    }
    assert {name: tuple(summary.shape) for name, summary in output.summary.items()} == {"type": (2, 5)}
    assert torch.equal(output.spatial["type"], model.heads["type_spatial"](output.student.spatial))
    assert torch.equal(output.summary["type"], model.heads["type_summary"](output.student.summaries[:, 0]))
    assert set(model(torch.rand(1, 3, 64, 64), ["forward"]).spatial) == {"forward"}


def test_every_teacher_reads_its_own_class_token_whatever_the_order_of_the_teachers() -> None:
    shape, size = StudentShape(channels=64, summary_channels=64, tokens={64: 4}), HeadSettings(width=8)
    sums = {"b": TeacherShape(dim=7, summary_dim=5), "c": TeacherShape(dim=3, summary_dim=None)}
    teachers = {**sums, "a": TeacherShape(dim=7, summary_dim=2)}
    assert summarised(teachers) == ["a", "b"]
    student = Student("radio_test_vit", vit=VitSettings(position_grid=4), summarised=summarised(teachers))
    model = DistilledModel(student, shape, teachers, size).eval()
    output = model(torch.rand(2, 3, 64, 64), teachers)
    for slot, name in enumerate(["a", "b"]):
        assert torch.equal(output.summary[name], model.heads[f"{name}_summary"](output.student.summaries[:, slot]))


def attention(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Softmax attention of 16 heads, head by head."""
    q, k, v = linear(block.qkv, x).reshape(*x.shape[:2], 3, 16, -1).unbind(2)  # type: ignore[arg-type]
    heads = []
    for head in range(16):
        weights = (q[:, :, head] @ k[:, :, head].transpose(1, 2) / q.shape[3] ** 0.5).softmax(dim=2)
        heads.append(weights @ v[:, :, head])
    return linear(block.proj, torch.cat(heads, dim=2))  # type: ignore[arg-type]


def test_transformer_blocks_ahead_of_a_head_see_every_token_of_the_window() -> None:
    torch.manual_seed(0)
    head = TokenHead(32, 3, HeadSettings(width=8, transformer_blocks=2)).eval()
    assert all(torch.equal(block.ls1.gamma, torch.full((32,), 1e-5)) for block in head.blocks)  # type: ignore[union-attr, arg-type]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.5)
        tokens = torch.randn(2, 2, 3, 32)
        x = tokens.reshape(2, 6, 32)
        for block in head.blocks:
            x = x + attention(block.attn, normed(block.norm1, x)) * block.ls1.gamma  # type: ignore[union-attr, arg-type, operator]
            mlp = block.mlp  # type: ignore[union-attr]
            x = x + linear(mlp.fc2, gelu(linear(mlp.fc1, normed(block.norm2, x)))) * block.ls2.gamma  # type: ignore[union-attr, arg-type, operator]
        assert torch.allclose(head(tokens), head.adaptor(x).reshape(2, 2, 3, 3), atol=1e-3, rtol=1e-3)


def test_a_head_for_tokens_without_blocks_is_an_adaptor_head() -> None:
    head, tokens = TokenHead(5, 3, HeadSettings(width=8)), torch.randn(2, 2, 3, 5)
    assert torch.equal(head(tokens), head.adaptor(tokens))


def test_blocks_whose_attention_heads_do_not_divide_the_students_channels_are_refused() -> None:
    with pytest.raises(SettingError) as refusal:
        TokenHead(40, 3, HeadSettings(transformer_blocks=2))
    assert str(refusal.value) == (
        "heads cannot be used:\n  heads.transformer_blocks: 16 attention heads do not divide the student's 40 channels "
        "(set it to 0)"
    )


@pytest.mark.parametrize("bias", [False, True])
def test_queries_keys_and_values_have_biases_only_if_the_settings_say_so(bias: bool) -> None:
    head = TokenHead(32, 3, HeadSettings(width=8, transformer_blocks=1, attention_bias=bias))
    assert ("blocks.0.attn.qkv.bias" in dict(head.named_parameters())) == bias


def test_the_heads_of_a_student_that_an_earlier_version_exported_have_biases() -> None:
    assert not HeadSettings().attention_bias
    assert read_head_settings({"width": 8, "inner_blocks": 0, "transformer_blocks": 2}).attention_bias
    assert not read_head_settings({"width": 8, "attention_bias": False}).attention_bias
