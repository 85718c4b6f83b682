"""The result of `verify`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from pipeline.inventory.unfinished import UnfinishedFacts
from storage_schemas.format.errors import Problem


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """How stored features compare with those that the teacher computes again."""

    teacher: str
    views: int
    """Views that the teacher was run on again."""
    largest_error: float
    """Largest relative error of a token; see `recompute.TOLERANCE`."""
    tolerance: float
    left_out: int
    """Committed views that the teacher cannot be run on again: this cache lacks their details, or part of their
    mosaic."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadIndependently:
    """What zarr-python read besides our own reader."""

    version: str
    """Of zarr-python."""
    arrays: int
    """Arrays of which it read a chunk."""
    chunks: int
    """Chunks that both readers read."""
    bytes: int
    """Size of these chunks, decoded."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found."""

    problems: tuple[Problem, ...]
    """Everything that differs from what was committed."""
    unfinished: tuple[UnfinishedFacts, ...]
    """Work that a run has still to do. It is no damage."""
    leftovers: Mapping[str, int]
    """Objects of ours that nothing in the cache names, with their size (bytes). They are no damage. Empty where a
    damaged manifest leaves unknown what is named."""
    foreign: Mapping[str, int]
    """The same of files that Stillhouse did not write."""
    recomputed: tuple[Recomputed, ...]
    """One for each teacher that was run again."""
    independent: ReadIndependently | None
    """None where zarr-python was not asked for."""
    rejected: int
    """Rejected views of committed shards."""
    units: int
    """Units with a committed shard."""
    objects: int
    """Committed objects that were checked."""
    bytes: int
    """Size of these objects."""
    quick: bool
    """Whether the bytes of array shards were not read."""
