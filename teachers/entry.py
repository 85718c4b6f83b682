"""What the catalogue says of one model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

from storage_schemas.format.teacher import Precision, Resample, TeacherSpec

Family = Literal["dinov3", "siglip2", "sam3"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedResize:
    """How one publisher of a model resizes an image. For information: views are resized once, for all teachers."""

    by: str
    """Who: a library, or the authors' own code."""
    resize: str
    """What becomes of the image's shape."""
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
    """One model: its spec, and what is needed to build it and to say where it comes from."""

    spec: TeacherSpec
    """The teacher under its catalogue name; a recipe may rename it."""
    family: Family
    """The module of this package that builds it: `teachers/<family>.py`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the library is given beside the model's name. Tiny models pass other sizes here than the real ones."""
    blocks: int
    """Transformer blocks: `layers` may name 0 to blocks − 1."""
    block: BlockShape
    """The shape of each of them."""
    prefix_tokens: int = 0
    """Tokens before the map's (class token and registers)."""
    parameters: int
    """Parameters of the network as it is built here."""
    precision: Precision = "bf16-autocast"
    """Precision unless a recipe says otherwise."""
    hub: str | None = None
    """Repository on the Hugging Face hub that `weights=hub` reads, or None for a model without weights."""
    gated: bool = False
    """Whether that repository asks for the licence to be accepted before it can be read."""
    also: str = ""
    """Where else the weights can be had, in layouts that `WEIGHTS=` accepts."""
    published: tuple[PublishedResize, ...] = ()
    """How others resize images for it."""
