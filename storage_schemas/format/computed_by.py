"""The code and the libraries that computed features.

They are not part of the features' identity: another version often computes the same numbers, and only the user can say
whether it does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from storage_schemas.format.errors import ContractError, Problem, require_fields
from storage_schemas.format.identity import digest

DIGITS = 12
"""Hexadecimal digits of the short digest: enough to tell two versions of a program apart."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedBy:
    """One version of the code and of the libraries that computed features of a teacher."""

    code: Mapping[str, str]
    """SHA-256 of the source of each of the user's own modules, by its name; empty for models of the catalogue."""
    libraries: Mapping[str, str]
    """Version of each library, by the name of its distribution."""

    @property
    def digest(self) -> str:
        """Short digest, by which a user accepts a change."""
        return digest(self.attributes())[:DIGITS]

    def attributes(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"code": dict(self.code), "libraries": dict(self.libraries)}

    @classmethod
    def from_attributes(cls, values: Any) -> "ComputedBy":
        """Read `attributes()` back.

        Raises:
            ContractError: it is not two mappings of text to text.
        """
        if not isinstance(values, dict):
            raise ContractError("computed_by", [Problem(place="attributes", found="is not a JSON object")])
        require_fields("computed_by", "attributes", values, cls.__slots__)
        problems = [
            Problem(place=name, found="is not a JSON object of names and texts")
            for name, entries in values.items()
            if not (isinstance(entries, dict) and all(isinstance(text, str) for text in entries.values()))
        ]
        if problems:
            raise ContractError("computed_by", problems)
        return cls(code=values["code"], libraries=values["libraries"])


NOT_RECORDED = ComputedBy(code={}, libraries={})
"""Stands for features of a cache that was made before this was recorded."""


def history_of(attributes: Mapping[str, Any]) -> tuple[ComputedBy, ...]:
    """Return the versions in a group's attributes, oldest first; none where it was made before this was recorded.

    Raises:
        ContractError: they are not a list of versions.
    """
    versions = attributes.get("computed_by", [])
    if not isinstance(versions, list):
        raise ContractError("computed_by", [Problem(place="attributes", found="is not a list")])
    return tuple(map(ComputedBy.from_attributes, versions))


def computed_by_attributes(history: tuple[ComputedBy, ...]) -> dict[str, Any]:
    """Return the attribute that `history_of` reads; none where nothing was recorded."""
    return {"computed_by": [version.attributes() for version in history]} if history else {}
