"""Upsamplers: they make a fine grid of tokens for a large window from a fixed teacher's tokens of native size."""

import abc
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from storage_schemas.format.errors import ContractError, Problem, SettingError, first_problems
from teachers.digest import weights_digest
from teachers.own import mismatched_keywords
from teachers.weight_files import open_weights


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
    mean: tuple[float, float, float]
    """Mean by which the teacher's images are normalised (RGB, of pixels in [0, 1])."""
    std: tuple[float, float, float]
    """Standard deviation by which they are divided."""

    @property
    def pixels(self) -> Float[Tensor, "views 3 side side"]:
        """The windows as they are without the teacher's normalisation: RGB in [0, 1]."""
        mean, std = (self.images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return self.images * std + mean


class AbstractUpsampler(abc.ABC):
    """Makes one fine grid from the tokens of a whole window and of its tiles.

    A trained upsampler (AnyUp, NAF, JAFAR, FeatSharp) is a class of your own, named `module:Class`. Its constructor
    takes `device`, and `weights` where it reads them from a path; `docs/adding_a_teacher.md` has a complete example.
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


def build_upsampler(source: str, device: torch.device, weights: str = "") -> AbstractUpsampler:
    """Build an upsampler.

    Args:
        source: `tiles`, `bilinear`, or `module:Class`.
        device: where it runs.
        weights: the path of its weights; empty where it has none, or brings them.

    Raises:
        SettingError: there is no such upsampler; or it takes no weights and some are given, or the reverse.
    """
    if source in UPSAMPLERS:
        if weights:
            problem = Problem(place="weights", found=f"{weights!r}, but it has no parameters", fix="leave them out")
            raise SettingError(f"upsampler {source!r}", [problem])
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
    given = {"device": device} | ({"weights": weights} if weights else {})
    problems = list(mismatched_keywords(source, inspect.signature(named).parameters, given))
    if problems:
        raise SettingError(f"upsampler {source!r}", problems)
    make: Any = named
    own: AbstractUpsampler = make(**given)
    return own


def load_weights(network: nn.Module, path: str) -> str:
    """Load a network of the user's own from a file, strictly, and freeze it.

    Args:
        network: with the names and shapes of the file's tensors.
        path: of a safetensors or PyTorch file, or of a folder with one model. No code in it is run.

    Returns:
        SHA-256 of the tensors: `weights_sha256` of an upsampler.

    Raises:
        MissingError: there is no such file.
        ContractError: it cannot be read, or a tensor is missing, unexpected or misshapen.
    """
    stored, expected = open_weights(Path(path)), network.state_dict()
    problems = [Problem(place=name, found="missing") for name in sorted(expected.keys() - stored.keys())]
    problems += [Problem(place=name, found="unexpected") for name in sorted(stored.keys() - expected.keys())]
    problems += [
        Problem(place=name, found=f"shape {stored[name].shape}, expected {tuple(tensor.shape)}")
        for name, tensor in expected.items()
        if name in stored and stored[name].shape != tuple(tensor.shape)
    ]
    if problems:
        raise ContractError(f"{path}, as weights of {type(network).__name__},", first_problems(problems, most=12))
    network.load_state_dict({name: tensor.read() for name, tensor in stored.items()}, strict=True)
    network.eval().requires_grad_(False)
    return weights_digest(network.state_dict())


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
