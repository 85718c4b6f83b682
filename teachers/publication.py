"""Where a model's weights are published."""

from dataclasses import dataclass
from typing import final

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Where a model's weights are published, and under which licence."""

    name: str
    """Name of the teacher in messages."""
    model: str
    """Name of the model in its library."""
    licence: str
    """Licence of the weights."""
    hub: str | None
    """Repository on the Hugging Face hub; None for a model that has none there."""
    gated: bool = False
    """Whether that repository can be read only after accepting its licence."""
    also: str = ""
    """Other places of the weights."""
    files: tuple[str, ...] = SAFETENSORS
    """Patterns of the repository's files that hold the weights, and of others that are needed."""
