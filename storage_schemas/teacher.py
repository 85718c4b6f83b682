"""What both sides must know of a teacher: its dimensions, the sizes it accepts, and how it wants its pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

from storage_schemas.errors import Problem, SettingError

SizeRule = Literal["any", "fixed", "canvas"]
Resample = Literal["bilinear", "bicubic"]
Precision = Literal["fp32", "bf16-autocast", "bf16"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSpec:
    """A teacher as the cache knows it. Two specs that differ in any field are two teachers."""

    name: str
    """Its name in the cache, `teachers/<name>`, and on the command line."""
    model: str
    """The model behind the name, as its library calls it; for people and for the cache's identity."""
    dim: int
    """Channels of a spatial token (C)."""
    summary_dim: int | None
    """Channels of the summary, or None for a teacher that has none (SAM3)."""
    patch: int
    """Side of a token's patch (pixels of the teacher's input)."""
    size_rule: SizeRule
    """`any`: the window at its own resolution. `fixed`: the window at `native` pixels, from `detail`. `canvas`: windows
    laid out in tokens on one `native` × `native` input."""
    native: int
    """Input side (pixels) of a `fixed` or `canvas` teacher; for `any` the side it was trained at, for information."""
    mean: tuple[float, float, float]
    """Mean (RGB, of pixels in [0, 1]) subtracted before the model."""
    std: tuple[float, float, float]
    """Standard deviation (RGB, of pixels in [0, 1]) divided by after the mean."""
    resample: Resample = "bilinear"
    """Antialiased filter for a canvas teacher's window, when its patch differs from the student's."""
    licence: str = "unstated"
    """Licence of the weights, which binds what may be done with the features too."""
    layer: int | None = None
    """Block whose output is cached, or None for the last."""
    random_weights: bool = False
    """True when the weights are seeded noise, for demonstrations and tests only."""

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise SettingError(f"teacher {self.name!r}", problems)

    @property
    def native_tokens(self) -> int:
        """Tokens along one side of a `native` input."""
        return self.native // self.patch

    def attributes(self) -> dict[str, Any]:
        """Return the spec as JSON-ready values, for Zarr attributes and the cache's identity."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> "TeacherSpec":
        """Rebuild a spec from `attributes()`, refusing unknown and missing fields."""
        odd = set(attributes) ^ set(cls.__slots__)
        if odd:
            found = f"fields that this version does not share: {', '.join(sorted(odd))}"
            raise SettingError("teacher attributes", [Problem(place="spec", found=found)])
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()
        }
        return cls(**values)


def _problems(spec: TeacherSpec) -> Iterator[Problem]:
    if not spec.name.replace("-", "").replace("_", "").isalnum():
        yield Problem(place="name", found=f"{spec.name!r} is not letters, digits, - and _", fix="it names a folder")
    if spec.size_rule not in get_args(SizeRule):
        yield Problem(place="size_rule", found=f"{spec.size_rule!r} is none of {', '.join(get_args(SizeRule))}")
    if spec.resample not in get_args(Resample):
        yield Problem(place="resample", found=f"{spec.resample!r} is none of {', '.join(get_args(Resample))}")
    for field in ("dim", "patch", "native"):
        if getattr(spec, field) < 1:
            yield Problem(place=field, found=f"{getattr(spec, field)} is not positive")
    if spec.patch > 0 and spec.native % spec.patch:
        yield Problem(place="native", found=f"{spec.native} px is not a multiple of the patch, {spec.patch} px")
    if min(spec.std) <= 0:
        yield Problem(place="std", found=f"{spec.std} is not positive")
