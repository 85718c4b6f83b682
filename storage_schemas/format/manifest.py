"""What the cache says of itself, in the attributes of its Zarr groups: the view sets, the teachers, their identities.

They are stored sealed, see `seal`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.identity import Identity, digest
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSetManifest:
    """Shape of one view set."""

    grid: ShardGrid
    geometry: CanvasGeometry

    def attributes(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "views": list(self.grid.counts),
            "rows_per_shard": self.grid.rows_per_shard,
            "resolution": self.geometry.resolution,
            "patch": self.geometry.patch,
            "margin": self.geometry.margin,
        }

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> "ViewSetManifest":
        """Read `attributes()` back; other fields are refused."""
        _require_fields("view set", values, {"views", "rows_per_shard", "resolution", "patch", "margin"})
        return cls(
            grid=ShardGrid(counts=tuple(values["views"]), rows_per_shard=values["rows_per_shard"]),
            geometry=CanvasGeometry(resolution=values["resolution"], patch=values["patch"], margin=values["margin"]),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What some views were drawn by: those that a cache was made with, or those that one extension added."""

    views: Mapping[str, Any]
    """Settings of the views."""
    images: Mapping[str, Any]
    """The images that it brought, without copies: `count`, and `keys_sha256`, the digest of their keys."""

    def attributes(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"views": self.views, "images": self.images}

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> "Generation":
        """Read `attributes()` back; other fields are refused."""
        _require_fields("generation", values, {"views", "images"})
        return cls(views=values["views"], images=values["images"])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsManifest:
    """Attributes of `views`: what was cut, from what."""

    identity: Identity
    """What the cache was made with: recipe, settings of the views, digest of the image list."""
    sets: Mapping[ViewSet, ViewSetManifest]
    """The view sets that hold views, in order of name."""
    extensions: tuple[Generation, ...] = ()
    """What was added since, oldest first."""

    @property
    def digest(self) -> str:
        """Digest of the identity: every view shard and every feature carries it. Extensions leave it as it is."""
        return digest(self.identity)

    @property
    def exported(self) -> bool:
        """Whether the views are a subset of those of another cache, which was exported to here."""
        return "export" in self.identity

    @property
    def generations(self) -> tuple[Generation, ...]:
        """What the cache was made with, and what was added since."""
        return Generation(views=self.identity["views"], images=self.identity["images"]), *self.extensions

    def attributes(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "identity": self.identity,
            "sets": {key.name: one.attributes() for key, one in self.sets.items()},
            "extensions": [one.attributes() for one in self.extensions],
        }

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> "ViewsManifest":
        """Read `attributes()` back.

        Raises:
            ContractError: its fields are not those of this version, or a set has views of other generations.
        """
        _require_fields("views", values, {"identity", "sets", "extensions"})
        sets = {ViewSet.parse(name): ViewSetManifest.from_attributes(one) for name, one in values["sets"].items()}
        extensions = tuple(map(Generation.from_attributes, values["extensions"]))
        for view_set, one in sets.items():
            if len(one.grid.counts) != 1 + len(extensions):
                found = f"has views of {len(one.grid.counts)} generations, there are {1 + len(extensions)}"
                raise ContractError("manifest of views", [Problem(place=view_set.name, found=found)])
        return cls(identity=values["identity"], sets=sets, extensions=extensions)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherManifest:
    """Attributes of `teachers/<teacher>`: what computed the features."""

    spec: TeacherSpec
    identity: Identity
    """Views, spec, weights, precision, placements, encoding, PHI-S: all that the stored values depend on."""
    tokens: Mapping[ViewSet, int]
    """Tokens along one side of a window, for each view set."""

    @property
    def digest(self) -> str:
        """Digest of the identity: every feature shard carries it."""
        return digest(self.identity)

    @property
    def exported(self) -> bool:
        """Whether the features are those of another cache, which were exported to here."""
        return "source" in self.identity

    @property
    def origin(self) -> Identity:
        """What the features were computed from, in the cache where a teacher was run."""
        identity = self.identity
        while "source" in identity:
            identity = identity["source"]
        return identity

    def attributes(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        tokens = {key.name: tokens for key, tokens in self.tokens.items()}
        return {"spec": self.spec.attributes(), "identity": self.identity, "tokens": tokens}

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> "TeacherManifest":
        """Read `attributes()` back.

        Raises:
            ContractError: its fields are not those of this version.
        """
        _require_fields("teacher", values, {"spec", "identity", "tokens"})
        return cls(
            spec=TeacherSpec.from_attributes(values["spec"]),
            identity=values["identity"],
            tokens={ViewSet.parse(name): tokens for name, tokens in values["tokens"].items()},
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CacheManifests:
    """What a cache says of itself and of some of its teachers, as one reading found it."""

    recipe: str
    """Name of the recipe that made the cache."""
    views: ViewsManifest | None
    """None before any view was cut."""
    teachers: Mapping[str, TeacherManifest]
    """By name; without those teachers that have no manifest yet."""


def _require_fields(subject: str, values: Mapping[str, Any], fields: set[str]) -> None:
    if odd := set(values) ^ fields:
        found = f"fields that this version does not share: {', '.join(sorted(odd))}"
        raise ContractError(f"manifest of {subject}", [Problem(place="attributes", found=found)])
