"""A model that a library builds by name, as far as it is known without weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import SummaryKind, TeacherSpec
from teachers.layers import refuse_layers
from teachers.publication import Publication


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LibraryModel:
    """What building a model and running it once on the meta device shows."""

    spec: TeacherSpec
    """Its spec, under the name of the model."""
    summary: SummaryKind
    """Where its summary comes from."""
    pooling: str
    """The summary in words."""
    normed: bool
    """Whether its final norm is applied to maps."""
    alike: tuple[bool, ...]
    """For each of its blocks, whether the block's map has the channels and the tokens of the last one's."""
    prefix_tokens: int
    """Tokens before those of the map."""
    parameters: int
    """Number of parameters, without a classifier."""
    publication: Publication
    """Where its weights are published."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options with which the library builds it."""

    def require_layers(self, name: str, layers: tuple[int, ...]) -> None:
        """Refuse blocks that do not exist, or whose maps have other shapes than the last block's.

        Args:
            name: of the teacher, for the message.
            layers: blocks whose maps are asked for.

        Raises:
            SettingError: there are such blocks.
        """
        if layers and not self.alike:
            found = f"{layers}, and only the map of its last block can be cached"
            raise SettingError(f"teacher {name!r}", [Problem(place="layers", found=found, fix="leave them out")])
        refuse_layers(name, layers, len(self.alike))
        known = ", ".join(str(block) for block, alike in enumerate(self.alike) if alike)
        problems = [
            Problem(
                place="layers",
                found=f"the map of block {layer} has other channels or tokens than the last block's",
                fix=f"blocks whose maps can be cached beside it: {known}",
            )
            for layer in layers
            if not self.alike[layer]
        ]
        if problems:
            raise SettingError(f"teacher {name!r}", problems)
