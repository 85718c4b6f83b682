"""What both sides must know about a teacher: its dimensions, sizes that it accepts, how its pixels are normalised."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, final, get_args

from storage_schemas.format.errors import Problem, SettingError, require_fields

SizeRule = Literal["any", "fixed", "canvas"]
Resample = Literal["bilinear", "bicubic"]
Precision = Literal["fp32", "bf16-autocast", "bf16"]
SummaryKind = Literal["own", "class-token", "mean", "none"]
"""Where the summary of a library's model comes from: its own pooling, its class token, the mean of its map, or none."""
_BLOCK = re.compile(r"-block(0|[1-9][0-9]*)$")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSpec:
    """A teacher as the cache knows it. Specs that differ in any field are different teachers."""

    name: str
    """Its name in the cache, `teachers/<name>`, and on the command line."""
    model: str
    """Name of the model in its library; for people, and part of the cache's identity."""
    dim: int
    """Channels of a spatial token (C)."""
    summary_dim: int | None
    """Channels of the summary, or None for a teacher that has none (SAM3)."""
    patch: int
    """Side of a token's patch (pixels of the teacher's input)."""
    size_rule: SizeRule
    """Which input sizes it accepts. `any`: the window at its own resolution. `fixed`: the window at `native` pixels,
    from `detail`. `canvas`: one `native` × `native` input, on which windows are laid out in tokens."""
    native: int
    """Side of the input of a `fixed` or `canvas` teacher (pixels). For `any`, the side it was trained at, for
    information."""
    mean: tuple[float, float, float]
    """Mean (RGB, of pixels in [0, 1]) subtracted before the model."""
    std: tuple[float, float, float]
    """Standard deviation (RGB, of pixels in [0, 1]) divided by after the mean."""
    resample: Resample = "bilinear"
    """Antialiased filter for the windows of a canvas teacher whose patch differs from the student's."""
    licence: str = "unstated"
    """Licence of the weights. It also restricts what may be done with the features."""
    layer: int | None = None
    """Block whose output is cached (counted from 0), or None for the last."""
    tiles: int = 1
    """For a fixed teacher: tiles along each side of a window in the high partition. It has so many times its native
    tokens there."""
    upsampler: str | None = None
    """What computes these tokens: `tiles`, `bilinear` or `module:Class`. None where `tiles` is 1."""
    random_weights: bool = False
    """Whether the weights are seeded noise, for demonstrations and tests only."""

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise SettingError(f"teacher {self.name!r}", problems)

    def block(self, layer: int) -> "TeacherSpec":
        """Return the spec of an intermediate block's output.

        The cache stores it as a teacher named `<name>-block<layer>`. It has no summary: the summary belongs to the
        last block.

        Args:
            layer: number of the block, from 0.
        """
        return replace(self, name=f"{self.name}-block{layer}", layer=layer, summary_dim=None)

    @property
    def forward_of(self) -> str:
        """Name of the teacher whose forward computes this output, and whose windows, cells and details it shares."""
        return forward_of(self.name)

    @property
    def native_tokens(self) -> int:
        """Tokens along one side of a `native` input."""
        return self.native // self.patch

    def attributes(self) -> dict[str, Any]:
        """Return the spec as JSON-ready values, for Zarr attributes and the cache's identity."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "TeacherSpec":
        """Rebuild a spec from `attributes()`.

        Raises:
            ContractError: fields are missing or unknown: another version wrote it.
        """
        require_fields("teacher spec", "spec", attributes, cls.__slots__)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()
        }
        return cls(**values)


def forward_of(name: str) -> str:
    """Return the name of the teacher whose forward computes an output: `dinov3` for `dinov3-block7`."""
    return _BLOCK.sub("", name)


def _problems(spec: TeacherSpec) -> Iterator[Problem]:
    if not (spec.name.isascii() and spec.name.replace("-", "").replace("_", "").isalnum()):
        yield Problem(
            place="name", found=f"{spec.name!r} is not ASCII letters, digits, - and _", fix="it names a folder"
        )
    for field, allowed in (("size_rule", get_args(SizeRule)), ("resample", get_args(Resample))):
        if getattr(spec, field) not in allowed:
            yield Problem(place=field, found=f"{getattr(spec, field)!r} is none of {', '.join(allowed)}")
    for field, least in (("dim", 1), ("summary_dim", 1), ("patch", 1), ("native", 1), ("layer", 0), ("tiles", 1)):
        value = getattr(spec, field)
        if value is not None and value < least:
            yield Problem(place=field, found=f"{value} is less than {least}")
    block = _BLOCK.search(spec.name)
    if (block and int(block[1])) != spec.layer and (spec.layer or 0) >= 0:
        fix = "with layer=n it is <name>-block<n>, and without a layer it does not end so"
        yield Problem(place="name", found=f"{spec.name!r} does not fit layer={spec.layer}", fix=fix)
    if spec.tiles > 1 and spec.size_rule != "fixed":
        found = f"{spec.tiles}, but a teacher of size rule {spec.size_rule} sees large windows whole"
        yield Problem(place="tiles", found=found, fix="leave it at 1")
    if (spec.tiles > 1) != (spec.upsampler is not None):
        yield Problem(place="upsampler", found=f"{spec.upsampler!r} for {spec.tiles} tiles along a side")
    if spec.patch > 0 and spec.native % spec.patch:
        yield Problem(place="native", found=f"{spec.native} px is not a multiple of the patch, {spec.patch} px")
    if len(spec.mean) != 3 or not all(map(math.isfinite, spec.mean)):
        yield Problem(place="mean", found=f"{spec.mean} is not three finite numbers")
    if len(spec.std) != 3 or not all(math.isfinite(value) and value > 0 for value in spec.std):
        yield Problem(place="std", found=f"{spec.std} is not three finite positive numbers")
