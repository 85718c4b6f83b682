"""How a teacher's spatial features are stored: encoding, step or latents, compression, as the identity records them.

The first caches record neither a step nor a level: theirs are the finest step of `int8`, and level 3 of zstd. Values
that are the same as theirs are left out of the identity, so that those caches keep theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from storage_schemas.format.encodings import INT8_STEP, Encoding
from storage_schemas.format.errors import CorruptionError, Problem
from storage_schemas.format.shard_format import OLD_LEVEL, ArraySpec, Compression, StoredType

STORAGE_FIELDS = frozenset({"encoding", "step", "latents", "compression", "compression_level"})
"""Fields of the features' identity that `FeatureStorage.identity` returns."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LatentsKey:
    """Which latents `pca8` features are stored in."""

    sha256: str
    """Digest of the latents."""
    kept: int
    """How many are stored."""
    fidelity: float
    """The fidelity that they were chosen for."""

    def attributes(self) -> dict[str, Any]:
        """Return the key as JSON-ready values."""
        return {"sha256": self.sha256, "kept": self.kept, "fidelity": self.fidelity}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStorage:
    """How spatial features are stored."""

    encoding: Encoding
    compression: Compression
    step: float = INT8_STEP
    """What a stored 1 of `int8` stands for (PHI-S units); no effect on other encodings."""
    level: int = OLD_LEVEL
    """Level of zstd; no effect without compression."""
    latents: LatentsKey | None = None
    """The latents of `pca8`; None for other encodings, and before they are chosen."""

    @property
    def dtype(self) -> StoredType:
        """Type of the stored entries."""
        return "int8" if self.encoding == "pca8" else self.encoding

    @property
    def text(self) -> str:
        """The storage in words."""
        words: str = self.encoding
        if self.encoding == "int8":
            words = f"int8 in steps of {self.step:.3g}"
        elif self.latents is not None:
            words = f"pca8 of {self.latents.kept} latents at fidelity {self.latents.fidelity:g}"
        return words if self.compression == "none" else f"{words}, {self.compression}"

    def channels(self, dim: int) -> int:
        """Return the numbers that are stored of a token of `dim` channels.

        Before latents are chosen, as many as there can be.
        """
        if self.encoding != "pca8":
            return dim
        return 1 + (dim if self.latents is None else self.latents.kept)

    def identity(self) -> dict[str, Any]:
        """Return the fields of the features' identity."""
        fields: dict[str, Any] = {"encoding": self.encoding, "compression": self.compression}
        if self.encoding == "int8" and self.step != INT8_STEP:
            fields["step"] = self.step
        if self.latents is not None:
            fields["latents"] = self.latents.attributes()
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
            latents=LatentsKey(**identity["latents"]) if "latents" in identity else None,
        )


def require_storage(spec: ArraySpec, identity: Mapping[str, Any]) -> None:
    """Refuse an array whose entries stand for other numbers than the manifest of its teacher says.

    Args:
        spec: the array, as its own metadata describes it.
        identity: of the features, in the manifest.

    Raises:
        CorruptionError: the two differ.
    """
    storage = FeatureStorage.of_identity(identity)
    latents = "" if storage.latents is None else storage.latents.sha256
    step = storage.step if storage.encoding == "int8" else spec.step
    if (spec.dtype, spec.latents, spec.step) != (storage.dtype, latents, step):
        found, fix = _difference(spec, storage), "another array's metadata is in its place: run `make verify`"
        raise CorruptionError("array", [Problem(place=f"{spec.path}/zarr.json", found=found, fix=fix)])


def _difference(spec: ArraySpec, storage: FeatureStorage) -> str:
    found = "latents" if spec.latents else f"int8 in steps of {spec.step:.3g}" if spec.dtype == "int8" else spec.dtype
    return f"is {found}, the manifest of its teacher says {storage.text}"
