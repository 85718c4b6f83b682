"""Adaptor heads: from the student's space to a teacher's."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from trainer.config import HeadSettings


@final
class InnerBlock(nn.Module):
    """One residual step inside a head: x + Linear(GELU(LayerNorm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.step = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))

    def forward(self, hidden: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead width"]:
        """Add the step to its input."""
        return hidden + self.step(hidden)


@final
class AdaptorHead(nn.Module):
    """Linear → inner blocks → LayerNorm → GELU → Linear, with a last bias of zero: the mean of PHI-S units.

    Source: v2.5 section 2.2; inner blocks as in NVlabs/RADIO's second version of the adaptor.
    """

    def __init__(self, inputs: int, outputs: int, settings: HeadSettings) -> None:
        """Build the head.

        Args:
            inputs: channels of the student.
            outputs: channels of the teacher.
            settings: width and inner blocks.
        """
        super().__init__()
        width = settings.width
        self.first = nn.Linear(inputs, width)
        self.inner = nn.Sequential(*(InnerBlock(width) for _ in range(settings.inner_blocks)))
        self.between = nn.Sequential(nn.LayerNorm(width), nn.GELU())
        self.last = nn.Linear(width, outputs)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Float[Tensor, "*lead inputs"]) -> Float[Tensor, "*lead outputs"]:
        """Map student features, channels last."""
        return self.last(self.between(self.inner(self.first(features))))
