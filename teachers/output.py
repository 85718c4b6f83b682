"""What a teacher returns, and the checks of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.teacher import TeacherSpec


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherOutput:
    """The features of a batch, in the teacher's own (raw) units."""

    summary: Float[Tensor, "batch summary"] | None
    """One vector per image, or None for a teacher without a summary."""
    spatial: Float[Tensor, "batch rows cols channels"]
    """One vector per token of the last block, row-major."""
    layers: Mapping[int, Float[Tensor, "batch rows cols channels"]] = field(default_factory=dict)
    """Block → its map, for the other blocks that were asked for; each is cached under a name of its own."""


def check_shapes(spec: TeacherSpec, output: TeacherOutput, grid: tuple[int, int, int], layers: tuple[int, ...]) -> None:
    """Refuse an output whose shapes are not those that the spec declares.

    Args:
        spec: of the teacher.
        output: what its network returned.
        grid: number of images, and of rows and columns of tokens.
        layers: blocks whose maps were asked for.

    Raises:
        ContractError: it names each wrong output, with its shape and the declared shape, or its type.
    """
    _refuse_other_than_tensors(spec, output)
    summary = None if spec.summary_dim is None else (grid[0], spec.summary_dim)
    expected = {"summary": summary, "spatial": (*grid, spec.dim)}
    expected |= {f"layers[{layer}]": (*grid, spec.dim) for layer in layers}
    found = {name: None if tensor is None else tuple(tensor.shape) for name, tensor in _tensors(output)}
    names = [*expected, *(name for name in found if name not in expected)]
    problems = [
        Problem(place=name, found=f"expected {expected.get(name)}, is {found.get(name)}")
        for name in names
        if expected.get(name) != found.get(name)
    ]
    if problems:
        raise ContractError(f"output of teacher {spec.name!r}", problems)


def _refuse_other_than_tensors(spec: TeacherSpec, output: TeacherOutput) -> None:
    fix = "some networks return several maps or their class token alone (docs/adding_a_teacher.md): choose one map"
    problems = [
        Problem(place=name, found=f"is a {type(value).__name__}, expected a tensor", fix=fix)
        for name, value in _tensors(output)
        if not (value is None or isinstance(value, Tensor))
    ]
    if problems:
        raise ContractError(f"output of teacher {spec.name!r}", problems)


def _tensors(output: TeacherOutput) -> list[tuple[str, Any]]:
    named = [(f"layers[{layer}]", tensor) for layer, tensor in output.layers.items()]
    return [("summary", output.summary), ("spatial", output.spatial), *named]


def in_float32(output: TeacherOutput) -> TeacherOutput:
    """Return the output in float32, whatever its precision was."""
    return TeacherOutput(
        summary=None if output.summary is None else output.summary.float(),
        spatial=output.spatial.float(),
        layers={layer: tensor.float() for layer, tensor in output.layers.items()},
    )


def first_of(output: TeacherOutput, images: int) -> TeacherOutput:
    """Return the output of the first images of a batch."""
    return TeacherOutput(
        summary=None if output.summary is None else output.summary[:images],
        spatial=output.spatial[:images],
        layers={layer: tensor[:images] for layer, tensor in output.layers.items()},
    )


def refuse_non_finite(name: str, output: TeacherOutput) -> None:
    """Refuse NaN and infinity.

    Raises:
        ContractError: it names the images of the batch that have them.
    """
    problems = []
    for place, tensor in _tensors(output):
        if tensor is None or tensor.is_meta:
            continue
        bad = (~tensor.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            found = f"NaN or infinity in image {', '.join(map(str, bad))} of the batch"
            problems.append(Problem(place=place, found=found, fix="try precision fp32"))
    if problems:
        raise ContractError(f"output of teacher {name!r}", problems)
