"""What `inspect` says of a cache, as text or as JSON: these dataclasses are the JSON's schema, field by field.

`schema` rises when a field changes its meaning or goes; fields may be added at any time. Sizes are bytes of committed
array shards. Nothing is null but where a field says so.
"""

from dataclasses import dataclass
from typing import final

from pipeline.inventory.unfinished import UnfinishedFacts
from pipeline.stats.facts import StatsFacts

SCHEMA = 1
"""Version of the JSON."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DetailFacts:
    """A fixed teacher's windows of one view set, at its own scale."""

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
    """Views drawn: a row slot each."""
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
    """Of the canvases."""
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
    """Of spatial features and summaries."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PhiSFacts:
    """The frozen PHI-S map of a teacher."""

    tokens: int
    """Tokens that it was fitted on."""
    scale: float
    """φ (raw teacher units)."""
    sha256: str
    """Of its arrays."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherFacts:
    """One teacher."""

    name: str
    model: str
    dim: int
    """Channels of a spatial token."""
    summary_dim: int | None
    """Channels of the summary; null for a teacher that has none."""
    patch: int
    """Side of a token's patch (pixels of the teacher's input)."""
    size_rule: str
    """`any`, `fixed` or `canvas`."""
    native: int
    """Side of the input (pixels) of a `fixed` or `canvas` teacher."""
    licence: str
    """Of the weights; it binds what may be done with the features."""
    random_weights: bool
    """True when the weights are seeded noise."""
    weights_sha256: str
    precision: str
    batch: int
    """Inputs in one forward."""
    encoding: str
    """Stored type of spatial features."""
    compression: str
    identity: str
    """Digest that every commit record of the features carries."""
    exported_from: str | None
    """Digest of the features of another cache that these were taken of; null where a teacher was run here."""
    sets: tuple[FeatureFacts, ...]
    bytes: int
    """Of all sets."""
    phi_s: PhiSFacts
    stats: StatsFacts | None
    """Null before `stats` measured it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WriterFacts:
    """A run that is writing, or was when it was killed."""

    lease: str
    """What it writes: `views`, `teachers/<teacher>`, or `cache` for a deletion."""
    work: str
    """What it does, such as `extract dinov3`; empty where it has ended and its claim cannot be read."""
    host: str
    process: int
    since: str
    """When it began, by its own clock."""
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
    """Digest of the views' identity; null before any view was drawn."""
    exported_from: str | None
    """Digest of the identity of the views that these were taken of; null where they were cut here."""
    images: int
    """Images in the list."""
    generations: int
    """How often views were drawn: when the cache was made, and at each extension; 0 before any view was drawn."""
    view_sets: tuple[ViewSetFacts, ...]
    teachers: tuple[TeacherFacts, ...]
    """Those that have features, or are ready to; sorted by name."""
    unfinished: tuple[UnfinishedFacts, ...]
    writers: tuple[WriterFacts, ...]
    """Who is at work, sorted by lease."""
