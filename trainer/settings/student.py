"""The settings of the student: RADIO's additions to a vision transformer, and the adaptor heads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from storage_schemas.format.errors import Problem

TokenPolicy = Literal["apart", "copied"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VitSettings:
    """RADIO's additions to a vision transformer: for the presets, and for timm models named with `radio_`."""

    position_grid: int = 128
    """Position embeddings along one side of the position grid, which is resampled to each image. 128 in the papers."""
    position_dropout: float = 0.1
    """Share of views without position embeddings in training. 0.1 in NVlabs/RADIO."""
    registers: int = 8
    """Register tokens. Not in the papers; C-RADIOv4's weights have 7, and ten tokens before the patches in all."""
    spare_class_tokens: int = 0
    """Class tokens without a head, after those of the teachers with a summary. C-RADIOv4's weights have three class
    tokens: two give the summary (SigLIP2, DINOv3), and the third, SAM3's, is spare."""
    final_norm: bool = False
    """Whether a LayerNorm follows the last block. NVlabs/RADIO: no."""
    global_blocks: int = 4
    """Blocks with global attention while the other blocks attend in windows; one more if this does not divide the
    depth. v4 section 3.2: 4."""
    windows: tuple[int, ...] = ()
    """Sides of attention windows in training (tokens). A step uses one of those that divide its token grid. None named:
    global attention only. v4 section 3.2 supports 6 to 32; those it trains with are not published."""
    window_share: float = 0.5
    """Share of steps with windowed attention, among steps for which a window fits. Not published."""
    window_tokens: TokenPolicy = "apart"
    """What class tokens and registers do in windowed blocks. `apart`: they stay unchanged, as when NVlabs/RADIO runs
    its students. `copied`: every window gets a copy, and the copies are averaged afterwards, as in training with NVIDIA
    TAO. Not published for C-RADIOv4."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """The adaptor heads: for each teacher one for tokens and, if the teacher has a summary, one for the summary."""

    width: int = 1024
    """Hidden width of a head (channels). Not published for C-RADIOv4; the default of NVIDIA TAO is 1024."""
    inner_blocks: int = 0
    """Residual blocks (LayerNorm, GELU, Linear) between the two layers of a head. v2.5 section 2.2 has none."""
    transformer_blocks: int = 0
    """Transformer blocks (16 attention heads) before each head for tokens. Not in the papers; NVIDIA TAO uses 2 and
    attributes them to C-RADIOv4."""
    attention_bias: bool = False
    """Whether queries, keys and values of these blocks have biases. NVlabs/RADIO and NVIDIA TAO: no. Runs and students
    of earlier versions have them."""


def read_vit_settings(values: Mapping[str, Any]) -> VitSettings:
    """Return settings from their JSON values."""
    return VitSettings(**{**values, "windows": tuple(values["windows"])})


def read_head_settings(values: Mapping[str, Any]) -> HeadSettings:
    """Return settings from their JSON values, which students of earlier versions wrote without `attention_bias`."""
    return HeadSettings(**{"attention_bias": True, **values})


def student_problems(vit: VitSettings, heads: HeadSettings) -> Iterator[Problem]:
    """Return a problem for every setting of the student that is not possible."""
    least = {
        "vit.position_grid": (vit.position_grid, 1),
        "vit.registers": (vit.registers, 0),
        "vit.spare_class_tokens": (vit.spare_class_tokens, 0),
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
        yield Problem(place="vit.windows", found=f"{listed} must be different numbers, each at least 2")
    if not 0 <= vit.position_dropout < 1:
        yield Problem(place="vit.position_dropout", found=f"{vit.position_dropout} is not in [0, 1)")
    if not 0 <= vit.window_share <= 1:
        yield Problem(place="vit.window_share", found=f"{vit.window_share} is not in [0, 1]")
