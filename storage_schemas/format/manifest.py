"""Manifests: what the groups of a cache say about its view sets and its teachers, and what these were computed from.

They are stored with a seal; see `seal`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from storage_schemas.format import document_schemas
from storage_schemas.format.computed_by import ComputedBy, computed_by_attributes, history_of
from storage_schemas.format.errors import ContractError, Problem, require_fields
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.identity import Identity, digest
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.schema import require
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSetManifest:
    """Sizes of one view set."""

    grid: ShardGrid
    """Its row slots and shards."""
    geometry: CanvasGeometry
    """Its canvas."""

    def attributes(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready values."""
        return {
            "views": list(self.grid.counts),
            "rows_per_shard": self.grid.rows_per_shard,
            "resolution": self.geometry.resolution,
            "patch": self.geometry.patch,
            "margin": self.geometry.margin,
        }

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> "ViewSetManifest":
        """Read `attributes()` back.

        Raises:
            ContractError: its fields are not those of this version.
        """
        _require_fields("view set", values, {"views", "rows_per_shard", "resolution", "patch", "margin"})
        require("manifest of view set", values, document_schemas.VIEW_SET, "attributes")
        return cls(
            grid=ShardGrid(counts=tuple(values["views"]), rows_per_shard=values["rows_per_shard"]),
            geometry=CanvasGeometry(resolution=values["resolution"], patch=values["patch"], margin=values["margin"]),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How some views were drawn: the views that a cache was made with, or those that one extension added."""

    views: Mapping[str, Any]
    """Settings of the views."""
    images: Mapping[str, Any]
    """The images that it added, without copies: `count`, and `keys_sha256`, the digest of their keys."""

    def attributes(self) -> dict[str, Any]:
        """Return the generation as JSON-ready values."""
        return {"views": self.views, "images": self.images}

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> "Generation":
        """Read `attributes()` back.

        Raises:
            ContractError: its fields are not those of this version.
        """
        _require_fields("generation", values, {"views", "images"})
        return cls(views=values["views"], images=values["images"])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsManifest:
    """Attributes of the group `views`: which view sets there are, and what they were cut from."""

    identity: Identity
    """What the first generation was cut from: recipe, settings of the views, digest of the image list."""
    sets: Mapping[ViewSet, ViewSetManifest]
    """The view sets that hold views."""
    extensions: tuple[Generation, ...] = ()
    """Generations that were added later, oldest first."""
    passed_over: Mapping[str, int] | None = field(default=None, compare=False)
    """What the last listing that added views passed over: kind → count. None in an export, and in a cache that was made
    before this was recorded. It is told, and decides nothing."""

    @property
    def digest(self) -> str:
        """Digest of the identity, which every record of these views carries. Extensions do not change it."""
        return digest(self.identity)

    @property
    def exported(self) -> bool:
        """Whether the views were exported from another cache."""
        return "export" in self.identity

    @property
    def generations(self) -> tuple[Generation, ...]:
        """All generations, the first one first."""
        return Generation(views=self.identity["views"], images=self.identity["images"]), *self.extensions

    def attributes(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready values."""
        attributes = {
            "identity": self.identity,
            "sets": {view_set.name: shape.attributes() for view_set, shape in self.sets.items()},
            "extensions": [generation.attributes() for generation in self.extensions],
        }
        return attributes | ({} if self.passed_over is None else {"passed_over": dict(self.passed_over)})

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> "ViewsManifest":
        """Read `attributes()` back.

        Raises:
            ContractError: its fields are not those of this version, or a set has another number of generations.
        """
        _require_fields("views", values, {"identity", "sets", "extensions"} | ({"passed_over"} & values.keys()))
        require("manifest of views", values, document_schemas.VIEWS, "attributes")
        sets = {ViewSet.parse(name): ViewSetManifest.from_attributes(shape) for name, shape in values["sets"].items()}
        extensions = tuple(map(Generation.from_attributes, values["extensions"]))
        for view_set, shape in sets.items():
            _require_sizes(view_set, shape, 1 + len(extensions))
        return cls(identity=values["identity"], sets=sets, extensions=extensions, passed_over=values.get("passed_over"))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherManifest:
    """Attributes of the group `teachers/<teacher>`: the teacher, and what its features were computed from."""

    spec: TeacherSpec
    """The teacher."""
    identity: Identity
    """Everything that the stored values depend on: views, spec, weights, precision, placements, encoding, PHI-S."""
    tokens: Mapping[ViewSet, int]
    """Tokens along one side of a window, for each view set."""
    computed_by: tuple[ComputedBy, ...] = ()
    """Versions of the code and the libraries that computed the features, oldest first: the user accepted each change.
    Empty in a cache that was made before this was recorded, and in an export."""

    @property
    def digest(self) -> str:
        """Digest of the identity, which every record of these features carries."""
        return digest(self.identity)

    @property
    def exported(self) -> bool:
        """Whether the features were exported from another cache."""
        return "source" in self.identity

    @property
    def origin(self) -> Identity:
        """The identity of the features in the cache where the teacher was run."""
        identity = self.identity
        while "source" in identity:
            identity = identity["source"]
        return identity

    def attributes(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready values."""
        tokens = {key.name: tokens for key, tokens in self.tokens.items()}
        attributes = {"spec": self.spec.attributes(), "identity": self.identity, "tokens": tokens}
        return attributes | computed_by_attributes(self.computed_by)

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> "TeacherManifest":
        """Read `attributes()` back.

        Raises:
            ContractError: its fields are not those of this version.
        """
        _require_fields("teacher", values, {"spec", "identity", "tokens"} | ({"computed_by"} & values.keys()))
        require("manifest of teacher", values, document_schemas.TEACHER, "attributes")
        source: Any = values["identity"].get("source")
        while source is not None:  # the features were exported, perhaps several times: each level is an identity
            require("manifest of teacher", source, document_schemas.FEATURES_IDENTITY, "attributes.identity.source")
            source = source.get("source")
        return cls(
            spec=TeacherSpec.from_attributes(values["spec"]),
            identity=values["identity"],
            tokens={ViewSet.parse(name): tokens for name, tokens in values["tokens"].items()},
            computed_by=history_of(values),
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


def _require_sizes(view_set: ViewSet, shape: ViewSetManifest, generations: int) -> None:
    """Refuse sizes of a view set that contradict its name or one another, or that no cache has."""
    grid, geometry, most = shape.grid, shape.geometry, document_schemas.MOST_SIDE
    problems = []
    if len(grid.counts) != generations:
        problems.append(f"has views of {len(grid.counts)} generations, there are {generations}")
    if geometry.resolution != view_set.resolution:
        problems.append(f"has the resolution {geometry.resolution}")
    if geometry.side > most:
        problems.append(f"has canvases of {geometry.side} px, the most are {most}")
    if grid.shards > document_schemas.MOST_SHARDS:
        problems.append(f"has {grid.shards} shards, the most are {document_schemas.MOST_SHARDS}")
    if problems:
        raise ContractError("manifest of views", [Problem(place=view_set.name, found=found) for found in problems])


def _require_fields(subject: str, values: Mapping[str, Any], fields: set[str]) -> None:
    require_fields(f"manifest of {subject}", "attributes", values, fields)
