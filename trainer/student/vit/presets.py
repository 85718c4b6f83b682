"""The sizes of vision transformers in the papers, by name. All have patches of 16 pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

PATCH = 16
"""Side of a patch (pixels)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VitSize:
    """Dimensions of a vision transformer."""

    channels: int
    """Channels of a token."""
    depth: int
    """Transformer blocks."""
    heads: int
    """Attention heads of a block."""
    hidden: int
    """Hidden channels of a block's MLP."""


PRESETS: Mapping[str, VitSize] = {
    "tiny": VitSize(channels=192, depth=12, heads=3, hidden=768),
    "small": VitSize(channels=384, depth=12, heads=6, hidden=1536),
    "base": VitSize(channels=768, depth=12, heads=12, hidden=3072),
    "large": VitSize(channels=1024, depth=24, heads=16, hidden=4096),
    "so400m": VitSize(channels=1152, depth=27, heads=16, hidden=4304),
    "huge": VitSize(channels=1280, depth=32, heads=16, hidden=5120),
}
"""Name → size: v2.5 has B, L and H, v4 has SO400M and H; tiny and small are DeiT's, for small budgets."""
