"""Upsamplers: what makes a fixed teacher's fine grid of tokens over a large window."""

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
    """What a fixed teacher saw of large windows, and what it said."""

    images: Float[Tensor, "views 3 side side"]
    """The windows, normalised as the teacher wants them, at the scale of the tiles."""
    whole: Float[Tensor, "views tokens tokens channels"]
    """Tokens of each window, seen whole at the teacher's native size."""
    tiled: Float[Tensor, "views fine fine channels"] | None
    """Tokens of its tiles, each seen alone at the native size, side by side; None for `bilinear`."""
    tiles: int
    """Along each side of a window."""


class AbstractUpsampler(abc.ABC):
    """Makes one fine grid of a teacher's tokens from what it says of a whole window and of its tiles.

    A trained one (FeatSharp, JAFAR) is a class of your own, named `module:Class`, whose constructor takes `device`.
    """

    weights_sha256: str = ""
    """SHA-256 of its parameters, which becomes part of the features' identity; empty for one that has none."""

    @abc.abstractmethod
    def upsample(self, seen: SeenWindows) -> Float[Tensor, "views fine fine channels"]:
        """Return the fine grid: `tiles` times as many tokens along each side as `whole` has."""


@final
class Tiles(AbstractUpsampler):
    """The tiles' own tokens. Each tile is seen without what surrounds it, so the grid shows their seams."""

    def upsample(self, seen: SeenWindows) -> Tensor:
        """Return `tiled`."""
        if seen.tiled is None:
            raise ContractError("upsampler tiles", [Problem(place="tiled", found="no tile was looked at")])
        return seen.tiled


@final
class Bilinear(AbstractUpsampler):
    """The whole window's tokens, interpolated: seamless, and no finer than the teacher's native view."""

    def upsample(self, seen: SeenWindows) -> Tensor:
        """Return `whole`, brought to the fine grid; a token's value lies at its centre."""
        fine = seen.tiles * seen.whole.shape[1]
        channels_first = seen.whole.permute(0, 3, 1, 2)
        return interpolate(channels_first, size=(fine, fine), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


UPSAMPLERS: Mapping[str, type[AbstractUpsampler]] = {"tiles": Tiles, "bilinear": Bilinear}
"""Every upsampler that needs no training, by its name in a recipe."""


def build_upsampler(source: str, device: torch.device) -> AbstractUpsampler:
    """Build an upsampler.

    Args:
        source: `tiles`, `bilinear`, or `module:Class`.
        device: where it runs.

    Raises:
        SettingError: there is none of that name.
    """
    if source in UPSAMPLERS:
        return UPSAMPLERS[source]()
    module_name, _, class_name = source.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        fix = f"there are {', '.join(UPSAMPLERS)}; one of your own is given as module:Class"
        raise SettingError(f"upsampler {source!r}", [Problem(place="source", found=str(error), fix=fix)]) from error
    if not (isinstance(found, type) and issubclass(found, AbstractUpsampler)):
        fix = "derive it from teachers.upsamplers.AbstractUpsampler"
        raise SettingError(f"upsampler {source!r}", [Problem(place="class", found="is no upsampler", fix=fix)])
    own: AbstractUpsampler = found(device=device)  # type: ignore[call-arg]
    return own


def upsampled(upsampler: AbstractUpsampler, seen: SeenWindows) -> Float[Tensor, "views fine fine channels"]:
    """Run an upsampler, and refuse what is not a finite grid of the right shape.

    Raises:
        ContractError: it gave another shape, NaN or infinity.
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
