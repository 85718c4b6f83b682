"""What `inspect` says of a cache, as text or as JSON. These dataclasses are the JSON's schema, field by field.

`schema` grows when a field is removed or changes its meaning; fields may be added at any time. Sizes are bytes of
committed array shards. A field is null only where its line says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from pipeline.inventory.unfinished import UnfinishedFacts
from pipeline.stats.facts import StatsFacts
from storage_schemas.format.computed_by import ComputedBy

SCHEMA = 1
"""Version of the JSON."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DetailFacts:
    """A fixed teacher's details of one view set: its windows at its own scale."""

    teacher: str
    shards: int
    """Shards of the set."""
    committed: int
    """Shards that are committed."""
    bytes: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSetFacts:
    """One view set."""

    name: str
    resolution: int
    """Side of the window (pixels)."""
    side: int
    """Side of the canvas (pixels)."""
    drawn: int
    """Views drawn; each has a row slot."""
    cut: int
    """Views in committed shards."""
    rejected: int
    """Views of committed shards that could not be cut."""
    rows_per_shard: int
    shards: int
    """Shards of the set."""
    committed: int
    """Shards that are committed."""
    bytes: int
    """Bytes of the canvases."""
    details: tuple[DetailFacts, ...]
    """Sorted by teacher."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureFacts:
    """A teacher's features of one view set."""

    view_set: str
    tokens: int
    """Tokens along one side of a window."""
    views: int
    """Views in committed shards."""
    shards: int
    """Shards of the set."""
    committed: int
    """Shards that are committed."""
    bytes: int
    """Bytes of spatial features and summaries."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PhiSFacts:
    """The frozen PHI-S map of a teacher."""

    tokens: int
    """Tokens that the map was fitted on."""
    scale: float
    """φ (raw teacher units)."""
    sha256: str
    """SHA-256 of its arrays."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherFacts:
    """One teacher."""

    name: str
    model: str
    dim: int
    """Channels of a spatial token."""
    summary_dim: int | None
    """Channels of the summary; null for a teacher without a summary."""
    patch: int
    """Side of a token's patch (pixels of the teacher's input)."""
    size_rule: str
    """`any`, `fixed` or `canvas`."""
    native: int
    """Side of the input (pixels) of a `fixed` or `canvas` teacher."""
    licence: str
    """Licence of the weights; it also limits the use of the features."""
    random_weights: bool
    """True when the weights are seeded noise."""
    weights_sha256: str
    precision: str
    batch: int
    """Inputs in one forward."""
    encoding: str
    """Stored type of spatial features."""
    step: float | None
    """What a stored 1 of `int8` stands for (PHI-S units); null for floats."""
    compression: str
    storage: str
    """Encoding, step and compression in words."""
    identity: str
    """Digest in every commit record of the features."""
    computed_by: tuple[ComputedBy, ...]
    """Versions of the code and the libraries that computed the features, oldest first; empty where the cache does not
    record them."""
    exported_from: str | None
    """Digest of the features of another cache from which these were exported; null where the teacher was run for this
    cache."""
    sets: tuple[FeatureFacts, ...]
    bytes: int
    """Bytes of all sets."""
    phi_s: PhiSFacts
    stats: StatsFacts | None
    """Null before `stats` has measured the teacher."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WriterFacts:
    """A run that is writing to the cache, or that was killed while it wrote."""

    lease: str
    """What it writes: `views`, `teachers/<teacher>`, or `cache` for a deletion."""
    work: str
    """The run's command, such as `extract dinov3`; empty where the run has ended and its claim cannot be read."""
    host: str
    process: int
    since: str
    """When it began, by its machine's clock."""
    last_sign: str | None
    """Time of its last heartbeat, by the store's clock; null in a folder, where file locks are used."""
    ended: bool
    """Whether its process is known to have ended. One on another machine, with its cache on an object store, counts as
    ended two minutes after its last heartbeat."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFacts:
    """A whole cache."""

    schema: int
    cache: str
    """Its URI."""
    recipe: str
    format: int
    """Version of the cache's format."""
    identity: str | None
    """Digest of the views' identity; null before any view is drawn."""
    exported_from: str | None
    """Identity of the views of another cache from which these were exported; null where they were cut here."""
    images: int
    """Images in the list."""
    passed_over: Mapping[str, int] | None
    """What the listing that last added views passed over in DATA, by kind; null where the cache does not record it."""
    generations: int
    """How often views were drawn: once for the first cache, and once for each extension; 0 before any view is drawn."""
    view_sets: tuple[ViewSetFacts, ...]
    teachers: tuple[TeacherFacts, ...]
    """Teachers with a manifest: their PHI-S is fitted. Sorted by name."""
    unfinished: tuple[UnfinishedFacts, ...]
    writers: tuple[WriterFacts, ...]
    """Runs that hold a lease, sorted by lease."""
