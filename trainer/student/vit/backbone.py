"""A timm vision transformer with RADIO's additions."""

from typing import final

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.seeds import Key
from trainer.settings.student import VitSettings
from trainer.student.vit.positions import Count, PositionGrid
from trainer.student.vit.recompute import recomputed
from trainer.student.vit.windows import attend, draw_window, global_blocks


@final
class VitBackbone(nn.Module):
    """Patch tokens with cropped positions, class tokens and registers before them, blocks with or without windows.

    Class tokens and registers have no position. Source: v4 sections 2.2 and 3.2, NVlabs/RADIO.
    """

    def __init__(self, trunk: VisionTransformer, settings: VitSettings, summaries: int) -> None:
        """Take patches, blocks and norms from timm, and add the rest.

        Args:
            trunk: a timm vision transformer without class token, registers and positions, for images of any size.
            settings: settings of the additions.
            summaries: number of class tokens that are summaries; spare ones follow them.
        """
        super().__init__()
        self.settings = settings
        self.channels: int = trunk.embed_dim
        self.patch: int = trunk.patch_embed.patch_size[0]
        self.patch_embed, self.norm_pre = trunk.patch_embed, trunk.norm_pre
        self.blocks, self.norm = trunk.blocks, trunk.norm
        # a bias that is the same on every patch is redundant beside the position grid
        self.patch_embed.proj.register_parameter("bias", None)
        self.positions = PositionGrid(settings.position_grid, self.channels, settings.position_dropout)
        self.summaries, class_tokens = summaries, summaries + settings.spare_class_tokens
        self.class_tokens = nn.Parameter(torch.randn(class_tokens, self.channels) * self.channels**-0.5)
        self.registers = nn.Parameter(torch.randn(settings.registers, self.channels) * self.channels**-0.5)
        self.everywhere = global_blocks(len(self.blocks), settings.global_blocks)
        self.checkpointing = False

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        *,
        window: int | None = None,
        uniforms: Float[Tensor, "batch 5"] | None = None,
    ) -> tuple[Float[Tensor, "batch rows cols channels"], Float[Tensor, "batch summaries channels"]]:
        """Return the patch tokens of the last block, and its class tokens that are summaries.

        Args:
            pixels: normalised.
            window: side of the windows (tokens) in which most blocks attend; None for global attention.
            uniforms: numbers from [0, 1) that positions are drawn from in training; None for the positions of
                evaluation.

        Raises:
            SettingError: the sides of the images are not multiples of the patch, or of the window.
        """
        rows, cols = self._grid(pixels, window)
        patches = self.norm_pre(self.patch_embed(pixels) + self.positions(rows, cols, uniforms))
        prefix = self.norm_pre(torch.cat([self.class_tokens, self.registers])).expand(patches.shape[0], -1, -1)
        blocks = recomputed(self.blocks, wanted=self.checkpointing)
        prefix, patches = attend(blocks, self.everywhere, prefix, patches, window, self.settings.window_tokens)
        return self.norm(patches), self.norm(prefix[:, : self.summaries])

    def draw_window(self, resolution: int, key: Key) -> int | None:
        """Draw the attention window (tokens) of one training step for square views of a resolution (pixels)."""
        return draw_window(self.settings.windows, self.settings.window_share, resolution // self.patch, key)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Choose whether blocks are computed again in the backward pass; timm's models have the same method."""
        self.checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay; timm's models have the same method."""
        return {"positions.grid", "class_tokens", "registers"}

    def _grid(self, pixels: Tensor, window: int | None) -> tuple[Count, Count]:
        height, width = pixels.shape[2:]
        place = f"image of {height} × {width} px"
        if height % self.patch or width % self.patch:
            found = f"its sides are not multiples of the patch, {self.patch} px"
            raise SettingError("image", [Problem(place=place, found=found, fix="resize it, or pad it")])
        rows, cols = height // self.patch, width // self.patch
        if window is not None and (rows % window or cols % window):
            found = f"{rows} × {cols} tokens cannot be divided into windows of {window} × {window} tokens"
            fix = "resize or pad it to multiples of window × patch, or choose another window"
            raise SettingError("window", [Problem(place=place, found=found, fix=fix)])
        return rows, cols
