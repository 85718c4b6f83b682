"""Heads, written out layer by layer."""

import torch
from torch import nn

from trainer.config import HeadSettings
from trainer.heads import AdaptorHead
from trainer.model import DistilledModel, TeacherShape
from trainer.student import Student, StudentShape


def linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.T + layer.bias


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
    assert torch.equal(output.summary["type"], model.heads["type_summary"](output.student.summary))
    assert set(model(torch.rand(1, 3, 64, 64), ["forward"]).spatial) == {"forward"}
