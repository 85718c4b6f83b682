"""Teachers for tests of tiny caches, named as users name their own: `tiny_teachers:Class`."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.teacher import Precision, SizeRule, TeacherSpec
from teachers.base import AbstractTeacher
from teachers.output import TeacherOutput
from teachers.quarter_mean import quarter_means

Images = Float[Tensor, "batch 3 height width"]
PATCH = 16


def _spec(name: str, *, native: int, size_rule: SizeRule) -> TeacherSpec:
    return TeacherSpec(
        name=name,
        model=name,
        dim=12,
        summary_dim=None if size_rule == "canvas" else 12,
        patch=PATCH,
        size_rule=size_rule,
        native=native,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


class AbstractTiny(AbstractTeacher):
    """The weighted mean colour of each quarter of each patch: with weights of 1 it can be checked by eye."""

    weight = 1.0

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(network.weight, self.weight)
        super().__init__(spec=spec, network=network, device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Average quarters; the summary, where there is one, is the mean over all patches."""
        spatial = quarter_means(images, PATCH) * torch.as_tensor(self.weight)
        return TeacherOutput(summary=None if self.spec.summary_dim is None else spatial.mean((1, 2)), spatial=spatial)


@final
class Direct(AbstractTiny):
    """Any size."""

    declared = _spec("direct", native=64, size_rule="any")


@final
class Fixed(AbstractTiny):
    """Only 48 px: 3 × 3 tokens."""

    declared = _spec("fixed", native=48, size_rule="fixed")


@final
class Canvas(AbstractTiny):
    """One 160 px canvas: 10 × 10 tokens; no summary."""

    declared = _spec("canvas", native=160, size_rule="canvas")


@final
class OtherWeights(AbstractTiny):
    """Declares itself as `Direct`, but has other weights."""

    declared = Direct.declared
    weight = 2.0
