"""How a teacher's spatial features are stored: encoding, step, compression and its level, as the identity records them.

The first caches record neither a step nor a level: theirs are the finest step of `int8`, and level 3 of zstd. Values
that are the same as theirs are left out of the identity, so that those caches keep theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from storage_schemas.format.encodings import INT8_STEP, Coding, Encoding
from storage_schemas.format.shard_format import OLD_LEVEL, Compression

STORAGE_FIELDS = frozenset({"encoding", "step", "compression", "compression_level"})
"""Fields of the features' identity that `FeatureStorage.identity` returns."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStorage:
    """How spatial features are stored."""

    encoding: Encoding
    compression: Compression
    step: float = INT8_STEP
    """What a stored 1 of `int8` stands for (PHI-S units); no effect on floats."""
    level: int = OLD_LEVEL
    """Level of zstd; no effect without compression."""

    @property
    def coding(self) -> Coding:
        """What the stored entries stand for."""
        return Coding(encoding=self.encoding, step=self.step if self.encoding == "int8" else 0.0)

    @property
    def text(self) -> str:
        """The storage in words, for tables."""
        return self.coding.text if self.compression == "none" else f"{self.coding.text}, {self.compression}"

    def identity(self) -> dict[str, Any]:
        """Return the fields of the features' identity."""
        fields: dict[str, Any] = {"encoding": self.encoding, "compression": self.compression}
        if self.encoding == "int8" and self.step != INT8_STEP:
            fields["step"] = self.step
        if self.compression == "zstd" and self.level != OLD_LEVEL:
            fields["compression_level"] = self.level
        return fields

    @classmethod
    def of_identity(cls, identity: Mapping[str, Any]) -> "FeatureStorage":
        """Read `identity()` back, among the other fields of an identity."""
        return cls(
            encoding=identity["encoding"],
            compression=identity["compression"],
            step=identity.get("step", INT8_STEP),
            level=identity.get("compression_level", OLD_LEVEL),
        )
