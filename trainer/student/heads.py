"""Adaptor heads: they map the student's features to a teacher's feature space."""

from typing import final

from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from storage_schemas.format.errors import Problem, SettingError
from trainer.settings.student import HeadSettings
from trainer.student.vit.recompute import recomputed

ATTENTION_HEADS = 16
"""Attention heads of a transformer block before a head."""
LAYER_SCALE = 1e-5
"""Initial LayerScale of such a block."""


@final
class InnerBlock(nn.Module):
    """One residual step inside a head: x + Linear(GELU(LayerNorm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.step = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))

    def forward(self, hidden: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead width"]:
        """Return the input plus the step."""
        return hidden + self.step(hidden)


@final
class AdaptorHead(nn.Module):
    """Linear → inner blocks → LayerNorm → GELU → Linear. The last bias starts at zero, the mean in PHI-S units.

    Source: v2.5 section 2.2; inner blocks as in NVlabs/RADIO's second version of the adaptor.
    """

    def __init__(self, inputs: int, outputs: int, settings: HeadSettings) -> None:
        """Build the head.

        Args:
            inputs: channels of the student.
            outputs: channels of the teacher.
            settings: width and number of inner blocks.
        """
        super().__init__()
        width = settings.width
        self.first = nn.Linear(inputs, width)
        self.inner = nn.Sequential(*(InnerBlock(width) for _ in range(settings.inner_blocks)))
        self.between = nn.Sequential(nn.LayerNorm(width), nn.GELU())
        self.last = nn.Linear(width, outputs)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Float[Tensor, "*lead inputs"]) -> Float[Tensor, "*lead outputs"]:
        """Map student features, channels last. The leading axes may be any."""
        return self.last(self.between(self.inner(self.first(features))))


@final
class TokenHead(nn.Module):
    """A head for tokens: transformer blocks over all tokens of a window, if any, then an adaptor head on each token.

    Source: the blocks are those of the attention adaptor of NVlabs/RADIO.
    """

    def __init__(self, inputs: int, outputs: int, settings: HeadSettings) -> None:
        """Build the head.

        Args:
            inputs: channels of the student.
            outputs: channels of the teacher.
            settings: width, number of inner blocks and of transformer blocks.

        Raises:
            SettingError: the blocks' attention heads do not divide the student's channels.
        """
        super().__init__()
        if settings.transformer_blocks and inputs % ATTENTION_HEADS:
            found = f"{ATTENTION_HEADS} attention heads do not divide the student's {inputs} channels"
            raise SettingError("heads", [Problem(place="heads.transformer_blocks", found=found, fix="set it to 0")])
        blocks = (
            Block(inputs, ATTENTION_HEADS, qkv_bias=settings.attention_bias, init_values=LAYER_SCALE)
            for _ in range(settings.transformer_blocks)
        )
        self.blocks = nn.Sequential(*blocks)
        self.adaptor = AdaptorHead(inputs, outputs, settings)
        self.checkpointing = False

    def forward(self, tokens: Float[Tensor, "batch rows cols inputs"]) -> Float[Tensor, "batch rows cols outputs"]:
        """Map a student's tokens to a teacher's."""
        hidden = tokens.flatten(1, 2)
        for block in recomputed(self.blocks, wanted=self.checkpointing):
            hidden = block(hidden)
        return self.adaptor(hidden.reshape(tokens.shape))
