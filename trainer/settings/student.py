"""The settings of the student: RADIO's additions to a vision transformer, and the adaptor heads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from storage_schemas.format.errors import Problem

TokenPolicy = Literal["apart", "copied"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VitSettings:
    """RADIO's additions to a vision transformer: for the presets, and for timm's behind `radio_`."""

    position_grid: int = 128
    """Codes along one side of the grid of positions; the grid is resampled to each picture. 128 in the papers."""
    position_dropout: float = 0.1
    """Share of views that see no position in training. 0.1 in NVlabs/RADIO."""
    registers: int = 8
    """Register tokens, beside one class token for each teacher with a summary. The papers give no number; 8 and the
    class tokens of SigLIP2 and DINOv3 make the ten that C-RADIOv4's weights hold."""
    final_norm: bool = False
    """Whether a LayerNorm follows the last block. NVlabs/RADIO has none."""
    global_blocks: int = 4
    """Blocks that attend everywhere where the others attend in windows; one more where this does not divide the depth.
    v4 section 3.2: 4."""
    windows: tuple[int, ...] = ()
    """Sides of windows (tokens) to draw from in training; a step takes one of those that divide its resolution. None
    named: attention everywhere. v4 section 3.2 supports 6 to 32, and does not publish what it trains with."""
    window_share: float = 0.5
    """Share of steps that have windows, where any fit. Not published."""
    window_tokens: TokenPolicy = "apart"
    """What class tokens and registers do in windowed blocks: `apart` leaves them unchanged, as NVlabs/RADIO runs its
    students; `copied` lends every window a copy and averages the copies, as NVIDIA TAO trains them. Not published
    for C-RADIOv4."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """The adaptor heads: one per teacher for its tokens, one for its summary."""

    width: int = 1024
    """Hidden width of a head (channels). Not published for C-RADIOv4; 1024 is the default of NVIDIA TAO."""
    inner_blocks: int = 0
    """Residual blocks (LayerNorm, GELU, Linear) between the two layers of a head. v2.5 section 2.2 has none."""
    transformer_blocks: int = 0
    """Transformer blocks of 16 attention heads ahead of each head for tokens. Not in the papers; NVIDIA TAO has 2 and
    names them C-RADIOv4's."""


def read_vit_settings(values: Mapping[str, Any]) -> VitSettings:
    """Return settings from what JSON made of them."""
    return VitSettings(**{**values, "windows": tuple(values["windows"])})


def student_problems(vit: VitSettings, heads: HeadSettings) -> Iterator[Problem]:
    """Name every setting of the student that cannot be."""
    least = {
        "vit.position_grid": (vit.position_grid, 1),
        "vit.registers": (vit.registers, 0),
        "vit.global_blocks": (vit.global_blocks, 1),
        "heads.width": (heads.width, 1),
        "heads.inner_blocks": (heads.inner_blocks, 0),
        "heads.transformer_blocks": (heads.transformer_blocks, 0),
    }
    for place, (value, bound) in least.items():
        if value < bound:
            yield Problem(place=place, found=f"{value} is less than {bound}")
    if min(vit.windows, default=2) < 2 or len(set(vit.windows)) < len(vit.windows):
        listed = " ".join(map(str, vit.windows))
        yield Problem(place="vit.windows", found=f"{listed} are not different numbers of 2 tokens or more")
    if not 0 <= vit.position_dropout < 1:
        yield Problem(place="vit.position_dropout", found=f"{vit.position_dropout} is not in [0, 1)")
    if not 0 <= vit.window_share <= 1:
        yield Problem(place="vit.window_share", found=f"{vit.window_share} is not in [0, 1]")
