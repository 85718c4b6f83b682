"""Upsamplers: they make a fine grid of tokens for a large window from a fixed teacher's tokens of native size."""

import abc
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from storage_schemas.format.errors import ContractError, Problem, SettingError


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenWindows:
    """Large windows, and a fixed teacher's tokens of them."""

    images: Float[Tensor, "views 3 side side"]
    """The windows at the scale of the tiles, normalised for the teacher."""
    whole: Float[Tensor, "views tokens tokens channels"]
    """Tokens of each window, shrunk as a whole to the teacher's native size."""
    tiled: Float[Tensor, "views fine fine channels"] | None
    """Tokens of its tiles, each of them one input of native size, side by side; None for `bilinear`."""
    tiles: int
    """Number of tiles along each side of a window."""


class AbstractUpsampler(abc.ABC):
    """Makes one fine grid from the tokens of a whole window and of its tiles.

    A trained upsampler (FeatSharp, JAFAR) is a class of your own, named `module:Class`; its constructor takes `device`.
    """

    weights_sha256: str = ""
    """SHA-256 of its parameters, part of the features' identity; empty for an upsampler without parameters."""

    @abc.abstractmethod
    def upsample(self, seen: SeenWindows) -> Float[Tensor, "views fine fine channels"]:
        """Return the fine grid: along each side it has `tiles` times as many tokens as `whole`."""


@final
class Tiles(AbstractUpsampler):
    """The tiles' own tokens. The teacher sees each tile without its surroundings, so the grid shows seams."""

    def upsample(self, seen: SeenWindows) -> Tensor:
        """Return `tiled`."""
        if seen.tiled is None:
            raise ContractError("upsampler tiles", [Problem(place="tiled", found="is None: the teacher saw no tiles")])
        return seen.tiled


@final
class Bilinear(AbstractUpsampler):
    """The whole window's tokens, interpolated: without seams, but with no more detail than the native size has."""

    def upsample(self, seen: SeenWindows) -> Tensor:
        """Return `whole`, interpolated to the fine grid; a token's value is at its centre."""
        fine = seen.tiles * seen.whole.shape[1]
        channels_first = seen.whole.permute(0, 3, 1, 2)
        return interpolate(channels_first, size=(fine, fine), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


UPSAMPLERS: Mapping[str, type[AbstractUpsampler]] = {"tiles": Tiles, "bilinear": Bilinear}
"""The upsamplers that need no training, by their names in a recipe."""


def build_upsampler(source: str, device: torch.device) -> AbstractUpsampler:
    """Build an upsampler.

    Args:
        source: `tiles`, `bilinear`, or `module:Class`.
        device: where it runs.

    Raises:
        SettingError: there is no such upsampler.
    """
    if source in UPSAMPLERS:
        return UPSAMPLERS[source]()
    module_name, _, class_name = source.partition(":")
    try:
        named = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        fix = f"there are {', '.join(UPSAMPLERS)}; for a class of your own give module:Class"
        raise SettingError(f"upsampler {source!r}", [Problem(place="source", found=str(error), fix=fix)]) from error
    if not (isinstance(named, type) and issubclass(named, AbstractUpsampler)):
        fix = "derive it from teachers.upsamplers.AbstractUpsampler"
        raise SettingError(f"upsampler {source!r}", [Problem(place="class", found="is not an upsampler", fix=fix)])
    own: AbstractUpsampler = named(device=device)  # type: ignore[call-arg]
    return own


def upsampled(upsampler: AbstractUpsampler, seen: SeenWindows) -> Float[Tensor, "views fine fine channels"]:
    """Run an upsampler, and check that it returns a finite grid of the right shape.

    Raises:
        ContractError: it returned another shape, NaN or infinity.
    """
    with torch.inference_mode():
        fine = upsampler.upsample(seen).float()
    views, tokens, _, channels = seen.whole.shape
    expected, problems = (views, seen.tiles * tokens, seen.tiles * tokens, channels), []
    if tuple(fine.shape) != expected:
        problems.append(Problem(place="shape", found=f"expected {expected}, is {tuple(fine.shape)}"))
    elif not bool(fine.isfinite().all()):
        problems.append(Problem(place="values", found="NaN or infinity"))
    if problems:
        raise ContractError(f"output of upsampler {type(upsampler).__name__}", problems)
    return fine
