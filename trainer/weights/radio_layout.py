"""C-RADIO's layouts of weights, both ways: NVlabs' own, that of `RadioModel` of transformers, and timm's.

NVlabs' files and timm's plain vision transformers name the parts of a block alike. `RadioModel` has queries, keys and
values apart; it reads NVlabs' names too, and writes them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from storage_schemas.format.errors import Problem
from trainer.student.vit.backbone import VitBackbone
from trainer.weights.files import Statistics

_MODEL = "radio_model.model."
_PATCHES, _POSITIONS = "patch_generator.embedder.weight", "patch_generator.pos_embed"
_TOKENS = "patch_generator.cls_token.token"
_MEAN, _STD = "radio_model.input_conditioner.norm_mean", "radio_model.input_conditioner.norm_std"
_SUMMARIES = "radio_model.summary_idxs"
_OF_TRANSFORMERS = {
    r"^embeddings\.patch_projection\.weight$": f"{_MODEL}{_PATCHES}",
    r"^embeddings\.position_embedding$": f"{_MODEL}{_POSITIONS}",
    r"^embeddings\.cls_register_token$": f"{_MODEL}{_TOKENS}",
    r"^input_conditioner\.": "radio_model.input_conditioner.",
    r"^summary_idxs$": _SUMMARIES,
    r"^encoder\.layer\.": f"{_MODEL}blocks.",
    r"\.attention\.o_proj\.": ".attn.proj.",
    r"\.layer_scale([12])\.lambda1$": r".ls\1.gamma",
    r"\.ls([12])\.grandma$": r".ls\1.gamma",  # NVlabs' name
}
"""Pattern of a name in the layout of transformers → NVlabs' name."""
_OTHER_PARTS = re.compile(
    r"^(radio_model\.)?(adaptors|_heads|_feature_projections)\.|video_(embedder|patch_projection)\."
)
"""Parts of C-RADIO that are none of its image backbone: NVIDIA's adaptor heads, and the patches of videos."""
_BLOCK_PARTS = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_BLOCK = {f"{part}.{kind}" for part in _BLOCK_PARTS for kind in ("weight", "bias")}
_SCALES = {"ls1.gamma", "ls2.gamma"}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TimmModel:
    """A C-RADIO model of timm whose outputs equal those of `RadioModel`, by the sizes that its name stands for."""

    name: str
    """Name of the `naflexvit_` model; without that prefix, with `vit_`, it is the model of one image size."""
    channels: int
    depth: int
    heads: int
    hidden: int
    tokens: int
    """Class tokens and registers together."""
    scaled: bool = False
    """Whether its blocks have LayerScale."""


TIMM_MODELS = (
    TimmModel(name="naflexvit_so400m_patch16_radio_v4", channels=1152, depth=27, heads=16, hidden=4304, tokens=10),
    TimmModel(name="naflexvit_huge_patch16_radio_v4", channels=1280, depth=32, heads=16, hidden=5120, tokens=10),
    TimmModel(
        name="naflexvit_large_patch16_radio_v3", channels=1024, depth=24, heads=16, hidden=4096, tokens=8, scaled=True
    ),
    TimmModel(name="naflexvit_giant_patch16_radio_v3", channels=1536, depth=40, heads=24, hidden=6144, tokens=8),
)
"""timm's C-RADIO models that resample positions as we do. Its base and huge v3 models align the corners of the grid."""


def is_radio(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether weights are in NVlabs' layout, or in that of transformers."""
    return f"{_MODEL}{_PATCHES}" in tensors or "embeddings.patch_projection.weight" in tensors


def from_radio(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Statistics | None, list[str]]:
    """Return C-RADIO's weights in the names of a timm vision transformer.

    The class tokens of the summary come first. The positions have their grid's own shape, `[1, rows, columns,
    channels]`, since no row of them belongs to a class token. Names that are not C-RADIO's stay as they are.

    Args:
        tensors: in NVlabs' layout, or in that of transformers.

    Returns:
        The weights; mean and standard deviation of the pixels, if they are stored; the names that were left out.
    """
    named = _joined({_nvlabs_name(name): value for name, value in tensors.items()})
    left_out = sorted(name for name in named if _OTHER_PARTS.search(name))
    for name in left_out:
        del named[name]
    mean, std, summaries = (named.pop(name, None) for name in (_MEAN, _STD, _SUMMARIES))
    plain = {name.removeprefix(_MODEL): value for name, value in named.items()}
    patches, positions, tokens = (plain.pop(name, None) for name in (_PATCHES, _POSITIONS, _TOKENS))
    if patches is not None:
        side = round((patches.shape[1] / 3) ** 0.5)
        plain["patch_embed.proj.weight"] = patches.unflatten(1, (3, side, side))
        plain["patch_embed.proj.bias"] = torch.zeros(len(patches))
    if positions is not None:
        side = round(positions.shape[1] ** 0.5)
        plain["pos_embed"] = positions.unflatten(1, (side, side)) if side**2 == positions.shape[1] else positions
    if tokens is not None:
        first = [] if summaries is None else summaries.tolist()
        order = [*first, *(place for place in range(len(tokens)) if place not in first)]
        plain["cls_token"], plain["reg_token"] = tokens[None, order[:1]], tokens[None, order[1:]]
    statistics = None if mean is None or std is None else (_exact(mean, OPENAI_CLIP_MEAN), _exact(std, OPENAI_CLIP_STD))
    return plain, statistics, left_out


def not_radio(backbone: Any) -> list[Problem]:
    """Return why C-RADIO's layouts cannot hold a backbone; nothing if they can."""
    if not isinstance(backbone, VitBackbone):
        fix = "only presets and radio_ students have them"
        return [Problem(place="backbone", found="is without RADIO's additions", fix=fix)]
    return list(_differences(backbone))


def radio_tensors(backbone: VitBackbone, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """Return a backbone's weights in NVlabs' layout, which transformers and timm read.

    Args:
        backbone: one that `not_radio` has no problem with.
        mean: of each colour, in [0, 1].
        std: of each colour.
    """
    tensors = {
        f"{_MODEL}{_PATCHES}": backbone.patch_embed.proj.weight.flatten(1),
        f"{_MODEL}{_POSITIONS}": backbone.positions.grid.flatten(1).T[None],
        f"{_MODEL}{_TOKENS}": torch.cat([backbone.class_tokens, backbone.registers]),
        _MEAN: mean.reshape(3, 1, 1),
        _STD: std.reshape(3, 1, 1),
        _SUMMARIES: torch.arange(backbone.summaries),
    }
    # transformers knows no name of NVlabs' for LayerScale, and would start it at 1 without a word
    scale = re.compile(r"\.ls([12])\.gamma$")
    blocks = {scale.sub(r".layer_scale\1.lambda1", name): value for name, value in backbone.blocks.state_dict().items()}
    tensors |= {f"{_MODEL}blocks.{name}": value for name, value in blocks.items()}
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


def radio_config(backbone: VitBackbone, mean: Tensor, std: Tensor) -> dict[str, Any]:
    """Return `config.json` for `RadioModel` of transformers."""
    block: Any = backbone.blocks[0]
    hidden = block.mlp.fc1.out_features
    return {
        "architectures": ["RadioModel"],
        "model_type": "radio",
        "dtype": "float32",
        "hidden_size": backbone.channels,
        "num_hidden_layers": len(backbone.blocks),
        "num_attention_heads": block.attn.num_heads,
        "mlp_ratio": _ratio(hidden, backbone.channels),
        "hidden_act": "gelu",
        "layer_norm_eps": block.norm1.eps,
        "layerscale_value": 1.0,
        "qkv_bias": True,
        "patch_size": backbone.patch,
        "max_img_size": backbone.settings.position_grid * backbone.patch,
        "num_cls_tokens": len(backbone.class_tokens),
        "num_registers": len(backbone.registers),
        "summary_idxs": list(range(backbone.summaries)),
        "norm_mean": mean.flatten().tolist(),
        "norm_std": std.flatten().tolist(),
    }


def timm_model(backbone: VitBackbone) -> TimmModel | None:
    """Return the C-RADIO model of timm that a backbone is, if it is one."""
    block: Any = backbone.blocks[0]
    tokens = len(backbone.class_tokens) + len(backbone.registers)
    sizes = (backbone.channels, len(backbone.blocks), block.attn.num_heads, block.mlp.fc1.out_features, tokens)
    if (backbone.patch, backbone.settings.position_grid, block.norm1.eps) != (16, 128, 1e-6):
        return None
    scaled = "ls1.gamma" in block.state_dict()
    return next(
        (
            model
            for model in TIMM_MODELS
            if sizes == (model.channels, model.depth, model.heads, model.hidden, model.tokens)
            and (model.scaled or not scaled)
        ),
        None,
    )


def timm_tensors(backbone: VitBackbone, *, scaled: bool) -> dict[str, Tensor]:
    """Return a backbone's weights in the names of timm's plain vision transformer; its NaFlex models read them too.

    Args:
        backbone: one that `not_radio` has no problem with, with a class token or register at least.
        scaled: whether timm's blocks have LayerScale. A backbone without it gets a scale of 1.
    """
    tokens = torch.cat([backbone.class_tokens, backbone.registers])[None]
    tensors = {
        "cls_token": tokens[:, :1],
        "reg_token": tokens[:, 1:],
        "pos_embed": backbone.positions.grid.flatten(1).T[None],
        "patch_embed.proj.weight": backbone.patch_embed.proj.weight,
        "patch_embed.proj.bias": torch.zeros(backbone.channels),
        **{f"blocks.{name}": value for name, value in backbone.blocks.state_dict().items()},
    }
    if scaled:
        scales = {f"blocks.{number}.{name}" for number in range(len(backbone.blocks)) for name in _SCALES}
        tensors = {name: torch.ones(backbone.channels) for name in sorted(scales)} | tensors
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


def _nvlabs_name(name: str) -> str:
    for pattern, replacement in _OF_TRANSFORMERS.items():
        name = re.sub(pattern, replacement, name)
    return name


def _joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join queries, keys and values, where all three are there."""
    joined = dict(tensors)
    for name in tensors:
        parts = [name.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
        if ".attention.q_proj." in name and all(part in joined for part in parts):
            whole = torch.cat([joined.pop(part) for part in parts])
            joined[name.replace(".attention.q_proj.", ".attn.qkv.")] = whole
    return joined


def _exact(stored: Tensor, published: tuple[float, ...]) -> tuple[float, ...]:
    """Return statistics of pixels; those that bfloat16 has rounded become the published ones that they came from."""
    rounded = torch.tensor(published).bfloat16().float()
    return published if torch.equal(stored.flatten(), rounded) else tuple(stored.flatten().tolist())


def _ratio(hidden: int, channels: int) -> float:
    """Return the ratio from which transformers and timm compute the hidden channels: they round down."""
    ratio = hidden / channels
    return ratio if int(channels * ratio) == hidden else (hidden + 0.5) / channels


def _differences(backbone: VitBackbone) -> Iterator[Problem]:
    for name in ("norm", "norm_pre"):
        if not isinstance(getattr(backbone, name), nn.Identity):
            fix = "train with --vit.final-norm False" if name == "norm" else ""
            yield Problem(place=name, found="C-RADIO has no norm there", fix=fix)
    if not len(backbone.class_tokens):
        yield Problem(place="class tokens", found="C-RADIO has at least one, this student has none")
    for number, block in enumerate(backbone.blocks):
        if not _is_radio_block(block):
            found = (
                "is not a block of C-RADIO: attention, then two layers with GELU between them, and at most LayerScale"
            )
            yield Problem(place=f"blocks.{number}", found=found)


def _is_radio_block(block: nn.Module) -> bool:
    names, mlp = set(block.state_dict()), getattr(block, "mlp", None)
    if type(block) is not Block or not isinstance(mlp, Mlp) or not isinstance(mlp.act, nn.GELU):
        return False
    return names - _SCALES == _BLOCK and names & _SCALES in (set(), _SCALES) and mlp.act.approximate == "none"
