"""Fitting the weights of a plain vision transformer to one with RADIO's additions."""

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from storage_schemas.format.errors import Problem
from trainer.student.vit.backbone import VitBackbone
from trainer.weights.files import StoredWeights
from trainer.weights.fitted import FittedWeights, listed, mismatches, shape_of

OF_CLASSIFIERS = ("head.", "head_dist.", "fc_norm.", "attn_pool.", "pre_logits.")
"""Prefixes of the parts after the last norm of timm's vision transformers: classifiers and their pooling."""
SCALED = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}
"""Name of a LayerScale in a block → the layer whose output it scales."""
NAFLEX = {"embeds.proj.": "patch_embed.proj.", "embeds.": ""}
"""Prefix in timm's NaFlex models → prefix in its plain ones."""


def fit_vit(backbone: VitBackbone, stored: StoredWeights) -> FittedWeights | list[Problem]:
    """Fit a plain vision transformer's weights to a backbone, or return a problem for every tensor that does not fit.

    - Patches of another size are resampled, as FlexiViT does (Beyer et al. 2023, arXiv:2212.08013). Their bias is added
      to the positions: here every patch has a position, and no bias.
    - Positions are resampled to the grid (bicubic), unless they have its size. Those of class token and registers are
      added to these tokens.
    - One class token is copied to all class tokens of the backbone. If the weights have as many tokens before the
      patches as the backbone, each takes its own. Registers that the weights do not have stay new.
    - LayerScale that only the weights have is folded into the layers before it.

    Args:
        backbone: the backbone; it does not change.
        stored: weights in the names of timm's vision transformers, plain or NaFlex.
    """
    found = _plain_names(stored.tensors)
    heads = [name for name in found if name.startswith(OF_CLASSIFIERS)]
    norms = [name for name in found if name.startswith("norm.")] if not backbone.settings.final_norm else []
    problems, lines = list[Problem](), list[str]()
    if heads:
        lines.append(f"left out: {listed(heads)} (classifier and pooling)")
    if norms:
        lines.append(f"left out: {listed(norms)} (this student has no final norm; --vit.final-norm True keeps it)")
    rest = {name: value for name, value in found.items() if name not in {*heads, *norms}}
    tokens = _take_tokens(rest, problems)
    bias = rest.pop("patch_embed.proj.bias", None)
    tensors = _take_patches(backbone, rest, lines, problems)
    new = _fit_tokens(backbone, tokens, tensors, lines, problems)
    if bias is not None and not problems:
        _add_bias(bias, tensors, lines, problems)
    expected = {
        name: value for name, value in backbone.state_dict().items() if name not in tensors | dict.fromkeys(new)
    }
    match_scales(rest, expected, lines)
    problems += mismatches(rest, expected)
    if problems:
        return problems
    return FittedWeights(tensors=rest | tensors, new=new, lines=tuple(lines), statistics=stored.statistics)


def resampled_grid(grid: Float[Tensor, "channels rows cols"], side: int) -> Float[Tensor, "channels {side} {side}"]:
    """Resample a grid of positions to a square (bicubic, with antialiasing where it shrinks), as timm does."""
    rows = grid.flatten(1).T[None]
    rows = resample_abs_pos_embed(rows, [side, side], old_size=list(grid.shape[1:]), num_prefix_tokens=0)
    return rows[0].T.unflatten(1, (side, side))


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in the names and shapes of timm's plain vision transformer."""
    named = {}
    for name, value in tensors.items():
        prefix = next((prefix for prefix in NAFLEX if name.startswith(prefix)), None)
        named[name if prefix is None else NAFLEX[prefix] + name.removeprefix(prefix)] = value
    patches = named.get("patch_embed.proj.weight")
    if "embeds.proj.weight" in tensors and patches is not None and patches.ndim == 2:  # rows, columns, then colours
        side = round((patches.shape[1] / 3) ** 0.5)
        if side * side * 3 == patches.shape[1]:
            named["patch_embed.proj.weight"] = patches.unflatten(1, (side, side, 3)).permute(0, 3, 1, 2)
    return named


def _take_tokens(rest: dict[str, Tensor], problems: list[Problem]) -> tuple[Tensor, Tensor, Tensor] | None:
    """Take positions, class tokens and registers out; return the positions as a grid `[channels, rows, columns]`."""
    positions = rest.pop("pos_embed", None)
    kinds = {name: rest.pop(name, None) for name in ("cls_token", "reg_token")}
    if positions is None:
        problems.append(Problem(place="pos_embed", found="is missing in the weights"))
        return None
    channels = positions.shape[-1]
    ahead = {}
    for name, value in kinds.items():
        if value is not None and (value.ndim != 3 or value.shape[0] != 1 or value.shape[2] != channels):
            problems.append(Problem(place=name, found=f"has shape {shape_of(value)}, not 1 × tokens × {channels}"))
        ahead[name] = torch.zeros(0, channels) if value is None or value.ndim != 3 else value[0]
    class_tokens, registers = ahead["cls_token"], ahead["reg_token"]
    if positions.ndim == 4:
        return positions[0].permute(2, 0, 1), class_tokens, registers
    count, before = positions.shape[1], len(class_tokens) + len(registers)
    with_tokens, without = _root(count - before), _root(count)
    if positions.ndim != 3 or (with_tokens is None) == (without is None and before > 0):
        found = f"has shape {shape_of(positions)}: with {before} tokens ahead this is no square grid"
        problems.append(Problem(place="pos_embed", found=found))
        return None
    if without is None and with_tokens is not None:
        extra, positions = positions[0, :before], positions[:, before:]
        class_tokens = class_tokens + extra[: len(class_tokens)]
        registers = registers + extra[len(class_tokens) :]
    side = with_tokens if without is None else without
    assert side is not None
    return positions[0].T.unflatten(1, (side, side)), class_tokens, registers


def _root(count: int) -> int | None:
    side = round(max(count, 0) ** 0.5)
    return side if side and side * side == count else None


def _take_patches(
    backbone: VitBackbone, rest: dict[str, Tensor], lines: list[str], problems: list[Problem]
) -> dict[str, Tensor]:
    """Take the patches out, and return them in the backbone's size; their bias stays for the positions."""
    name, own = "patch_embed.proj.weight", backbone.patch_embed.proj.weight
    patches = rest.pop(name, None)
    if patches is None:
        problems.append(Problem(place=name, found="is missing in the weights"))
        return {}
    if patches.ndim == 4 and patches.shape[2:] != own.shape[2:] and patches.shape[:2] == own.shape[:2]:
        lines.append(f"resampled: {name} from {shape_of(patches)} to {shape_of(own)}")
        patches = resample_patch_embed(patches, list(own.shape[2:]))
    if patches.shape != own.shape:
        found = f"has shape {shape_of(patches)}, the student has {shape_of(own)}"
        problems.append(Problem(place=name, found=found))
    return {name: patches}


def _fit_tokens(
    backbone: VitBackbone,
    stored: tuple[Tensor, Tensor, Tensor] | None,
    tensors: dict[str, Tensor],
    lines: list[str],
    problems: list[Problem],
) -> tuple[str, ...]:
    """Add positions, class tokens and registers to the backbone's tensors; return those that stay new."""
    own = {"positions.grid": backbone.positions.grid, "class_tokens": backbone.class_tokens}
    own["registers"] = backbone.registers
    if stored is None:
        return tuple(own)
    grid, class_tokens, registers = stored
    if len(grid) != backbone.channels:
        found = f"has {len(grid)} channels, the student has {backbone.channels}"
        problems.append(Problem(place="pos_embed", found=found))
        return tuple(own)
    side = backbone.settings.position_grid
    if grid.shape[1:] != (side, side):
        lines.append(f"resampled: positions from {shape_of(grid[0])} to {side} × {side}")
        grid = resampled_grid(grid, side)
    tensors["positions.grid"] = grid
    return _fit_ahead(backbone, class_tokens, registers, tensors, lines, problems)


def _fit_ahead(
    backbone: VitBackbone,
    class_tokens: Tensor,
    registers: Tensor,
    tensors: dict[str, Tensor],
    lines: list[str],
    problems: list[Problem],
) -> tuple[str, ...]:
    needed, kept = len(backbone.class_tokens), len(backbone.registers)
    ahead = torch.cat([class_tokens, registers])
    if len(ahead) == needed + kept and len(ahead):
        tensors |= {"class_tokens": ahead[:needed], "registers": ahead[needed:]}
        return ()
    if len(class_tokens) > 1 or len(registers) not in (0, kept):
        count = len(ahead) - needed
        fix = f"--vit.registers {count}" if count >= 0 else "choose weights with more tokens"
        found = (
            f"have {len(ahead)} tokens before the patches, the student has {needed} class tokens and {kept} registers"
        )
        problems.append(Problem(place="the weights", found=found, fix=fix))
        return ("class_tokens", "registers")
    new = list[str]()
    if len(class_tokens) and needed:
        lines.append(f"copied: the class token, to all {needed} class tokens")
        tensors["class_tokens"] = class_tokens.expand(needed, -1)
    elif len(class_tokens):
        lines.append("left out: cls_token (no teacher of this run has a summary)")
        tensors["class_tokens"] = backbone.class_tokens
    else:
        new += ["class_tokens"] if needed else []
        tensors |= {} if needed else {"class_tokens": backbone.class_tokens}
    if len(registers) or not kept:
        tensors["registers"] = registers if kept else backbone.registers
    else:
        new.append("registers")
    return tuple(new)


def _add_bias(bias: Tensor, tensors: dict[str, Tensor], lines: list[str], problems: list[Problem]) -> None:
    """Add the bias of patches to the positions."""
    grid = tensors["positions.grid"]
    if bias.shape != grid.shape[:1]:
        found = f"has shape {shape_of(bias)}, the student has {len(grid)} channels"
        problems.append(Problem(place="patch_embed.proj.bias", found=found))
    elif bias.any():
        lines.append("added: patch_embed.proj.bias, to all positions")
        tensors["positions.grid"] = grid + bias[:, None, None]


def match_scales(rest: dict[str, Tensor], expected: Mapping[str, Tensor], lines: list[str]) -> None:
    """Give weights LayerScale, of 1, if only the backbone has it; fold theirs into the layers before it if it has none.

    γ (W x + b) = (γ W) x + γ b
    """
    ours, theirs = ([name for name in tensors if name.endswith(tuple(SCALED))] for tensors in (expected, rest))
    if ours and not theirs:
        lines.append("LayerScale: the weights have none, so it starts at 1")
        rest |= {name: torch.ones_like(expected[name]) for name in ours}
    layers = {name: re.sub(r"ls[12]\.gamma$", SCALED[name[-9:]], name) for name in theirs}
    complete = all(f"{layer}.{kind}" in rest for layer in layers.values() for kind in ("weight", "bias"))
    if theirs and not ours and complete:
        lines.append("folded: LayerScale, into the layers before it (this student has none)")
        for name, layer in layers.items():
            scale = rest.pop(name)
            rest[f"{layer}.weight"] = scale[:, None] * rest[f"{layer}.weight"]
            rest[f"{layer}.bias"] = scale * rest[f"{layer}.bias"]
