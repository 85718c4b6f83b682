"""What features would take in each encoding, and what it would lose: measured on a few views of every set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from pipeline.phi_s.latents import latents_of
from pipeline.phi_s.moments import covariance, merge_all
from pipeline.stats.committed import CommittedFeatures
from pipeline.stats.stored import read_sums
from pipeline.text_table import aligned, sized
from storage_schemas.cache import Cache
from storage_schemas.commits import read_commit
from storage_schemas.format.encodings import INT8_STEP, Coding, as_numbers, as_stored, step_of_fidelity
from storage_schemas.format.latents import latents_digest
from storage_schemas.format.layout import features_unit, spatial_array
from storage_schemas.format.shard_format import ArraySpec, encode_chunk
from storage_schemas.format.views import ViewSet

VIEWS = 8
"""Views of each set that are encoded: the first of its first shard that has any."""
FIDELITIES = (100.0, 30.0)
"""Fidelities that are shown of the encodings that have a choice."""
INDEX_BYTES = 16
"""What a shard's index takes for each view."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SizeFacts:
    """An encoding of one teacher's features of one view set."""

    teacher: str
    view_set: str
    storage: str
    """Encoding, step or fidelity, and compression."""
    bytes: float
    """Bytes of a view's spatial features, with checksum and share of the index."""
    fidelity: float | None
    """Variance of the stored features over the error of encoding these; None where none is made."""


def encoded_sizes(cache: Cache, features: CommittedFeatures) -> Iterator[SizeFacts]:
    """Encode a few views of each set in every encoding that is coarser than the stored one.

    Features that are stored as integers are shown as they are stored: they are not encoded twice.

    Args:
        cache: the cache.
        features: of a teacher whose statistics are stored.
    """
    candidates = _candidates(cache, features)
    for view_set, rows in features.rows.items():
        shard = next((shard for shard in sorted(rows) if rows[shard]), None)
        if shard is not None:
            yield from _of_set(cache, features, view_set, shard, candidates)


def size_lines(sizes: Sequence[SizeFacts]) -> Iterator[str]:
    """Yield a table of encodings, and what the columns are."""
    rows = [["teacher", "view set", "stored as", "bytes of a view", "F"]]
    for size in sizes:
        fidelity = "" if size.fidelity is None else f"{size.fidelity:,.4g}"
        rows.append([size.teacher, size.view_set, size.storage, sized(round(size.bytes)), fidelity])
    yield from aligned(rows, left=3)
    yield f"bytes, F: of the first {VIEWS} views of each set, encoded anew; docs/storage.md says what to choose"


def _candidates(cache: Cache, features: CommittedFeatures) -> Mapping[str, Coding]:
    if features.manifest.identity["encoding"] not in ("float16", "float32"):
        return {}
    codings = {"float16": Coding(encoding="float16"), "int8, zstd": Coding(encoding="int8", step=INT8_STEP)}
    spread = covariance(merge_all(read_sums(cache, features.manifest, features.stats).sets.values()))
    for fidelity in FIDELITIES:
        codings[f"int8 at {fidelity:g}, zstd"] = Coding(encoding="int8", step=step_of_fidelity(fidelity))
        codings[f"pca8 at {fidelity:g}, zstd"] = Coding(encoding="pca8", latents=latents_of(spread, fidelity))
    return codings


def _of_set(
    cache: Cache, features: CommittedFeatures, view_set: ViewSet, shard: int, candidates: Mapping[str, Coding]
) -> Iterator[SizeFacts]:
    name, stored = features.name, features.manifest.identity["encoding"]
    commits = {shard: read_commit(cache.store, features_unit(view_set, name), shard)}
    array = cache.array(spatial_array(view_set, name), commits)
    record = array.records[shard]
    if not candidates:
        size = record.bytes / record.rows
        yield SizeFacts(teacher=name, view_set=view_set.name, storage=f"{stored}, as it is", bytes=size, fidelity=None)
        return
    rows = range(record.first_row, record.first_row + min(VIEWS, record.rows))
    numbers = as_numbers(array.read(rows), cache.coding(array.spec)).astype(np.float32)
    variance = float(np.mean((numbers - numbers.mean(axis=(0, 1, 2))) ** 2))
    for text, coding in candidates.items():
        entries = as_stored(numbers, coding)
        error = float(np.mean((as_numbers(entries, coding).astype(np.float64) - numbers) ** 2))
        size = float(np.mean([_chunk_bytes(entry, coding, text) for entry in entries])) + INDEX_BYTES
        fidelity = variance / error if error else None
        yield SizeFacts(teacher=name, view_set=view_set.name, storage=text, bytes=size, fidelity=fidelity)


def _chunk_bytes(entry: np.ndarray, coding: Coding, text: str) -> int:
    spec = ArraySpec(
        path="size",
        shape=(1, *entry.shape),
        dtype="float16" if coding.encoding == "float16" else "int8",
        rows_per_shard=1,
        compression="zstd" if text.endswith("zstd") else "none",
        level=1,
        latents="" if coding.latents is None else latents_digest(coding.latents),
    )
    return sum(map(len, encode_chunk(entry, spec)))
