"""An entry of the catalogue of teachers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

from storage_schemas.format.teacher import Precision, Resample, TeacherSpec
from teachers.publication import SAFETENSORS

Family = Literal["dinov3", "siglip2", "sam3"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedResize:
    """How one publisher of a model resizes images. For information: here views are resized once, for all teachers."""

    by: str
    """The publisher: a library, or the authors' own code."""
    resize: str
    """How the image's shape changes."""
    resample: Resample
    """The filter, with antialiasing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """The shape of a model's transformer blocks, as far as their cost depends on it."""

    hidden: int
    """Channels between the matrices of the MLP."""
    gated: bool = False
    """Whether the MLP is a SwiGLU, which has three matrices instead of two."""
    window: int = 0
    """Side of an attention window (tokens); 0 where every block attends to all tokens."""
    global_blocks: int = 0
    """Blocks that attend to all tokens, where the others attend within windows."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One model: its spec, how to build it, and where its weights are published."""

    spec: TeacherSpec
    """The spec, under the catalogue's name; a recipe may rename it."""
    family: Family
    """The module of this package that builds it: `teachers/<family>.py`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options for the library that builds the model. Tiny models pass other sizes here than the real ones."""
    blocks: int
    """Transformer blocks: `layers` may name 0 to blocks − 1."""
    block: BlockShape
    """The shape of each block."""
    prefix_tokens: int = 0
    """Tokens that come before those of the map (class token and registers)."""
    parameters: int
    """Number of parameters of the network as it is built here."""
    precision: Precision = "bf16-autocast"
    """Default precision; a recipe may set another."""
    hub: str | None = None
    """Repository on the Hugging Face hub that `weights=hub` reads; None for a model without published weights."""
    gated: bool = False
    """Whether that repository can be read only after accepting its licence."""
    files: tuple[str, ...] = SAFETENSORS
    """Patterns of the repository's files that hold the weights."""
    also: str = ""
    """Other places of the weights, in layouts that `WEIGHTS=` accepts."""
    published: tuple[PublishedResize, ...] = ()
    """How its publishers resize images."""
