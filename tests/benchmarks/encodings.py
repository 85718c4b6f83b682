"""Bytes on disk of the encodings of features, and what they lose: one table over synthetic and cached features.

    python -m tests.benchmarks.encodings                              # synthetic: variances k^-1, k^-1.5, k^-2
    python -m tests.benchmarks.encodings --cache out/demo/cache       # features of a cache that `make stats` measured

Bytes are those of the array shards, indices and checksums included, and of the latents, for all views. F is the
variance of the features over the mean squared error of what is stored. R(D) is that of Gaussian tokens of the same
covariance at the F that was reached, by reverse water-filling: what no code of single tokens can go below.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np

from pipeline.phi_s.hadamard import hadamard
from pipeline.phi_s.latents import latents_of
from pipeline.text_table import aligned
from storage_schemas.cache import Cache
from storage_schemas.format.encodings import INT8_STEP, Coding, as_numbers, as_stored, step_of_fidelity
from storage_schemas.format.latents import latents_digest
from storage_schemas.format.layout import array_object
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import open_shard

CHANNELS, SIDE, VIEWS = 1024, 16, 64
FIDELITIES = (100.0, 30.0, 10.0)
LEVELS = (1, 12, 19)
"""Levels of zstd at which `pca8` is compressed."""


@final
@dataclass(frozen=True, kw_only=True)
class Features:
    """Features in PHI-S units, and what latents are chosen from."""

    name: str
    numbers: Sequence[np.ndarray]
    """Each view's tokens."""
    covariance: np.ndarray
    """Of all tokens that latents are chosen from."""


def synthetic(power: float) -> Features:
    """Return Gaussian features whose latents have the variances k^-power."""
    variances = np.arange(1.0, CHANNELS + 1) ** -power
    variances *= CHANNELS / variances.sum()
    mixing, draws = hadamard(CHANNELS), np.random.default_rng(0)
    shape, roots = (SIDE, SIDE, CHANNELS), np.sqrt(variances)
    views = [((draws.standard_normal(shape) * roots) @ mixing.T).astype(np.float32) for _ in range(VIEWS)]
    return Features(name=f"k^-{power:g}", numbers=views, covariance=mixing * variances @ mixing.T)


def cached(uri: str) -> Iterator[Features]:
    """Yield the features of each teacher of a cache, by view set; latents are chosen from all sets of the teacher."""
    cache = Cache.open(uri)
    for name in cache.teachers():
        stats = cache.stats(name)
        manifest = cache.teacher_manifest(name)
        assert stats is not None, "run `make stats`"
        assert manifest is not None, "run `make extract`"
        total = sum(channels.tokens for channels in stats.sets.values())
        covariance = np.zeros((manifest.spec.dim, manifest.spec.dim))
        for view_set, channels in stats.sets.items():
            place = f"{cache.store.uri}/features.zarr/teachers/{name}/stats/{view_set.name}/covariance/c/0/0"
            scatter = np.frombuffer(Path(place).read_bytes()[:-4], "<f8").reshape(covariance.shape)
            covariance += scatter * channels.tokens / total
        for view_set in stats.sets:
            reader = cache.open_views(view_set.name, teachers=[name])
            rows = reader.rows()[:VIEWS]
            numbers = [reader.read(int(row)).teachers[name].spatial for row in rows]
            yield Features(name=f"{name}, {view_set.name}", numbers=numbers, covariance=covariance)


def lowest_rate(covariance: np.ndarray, fidelity: float) -> float:
    """Return R(D) of Gaussian tokens in bits per number: reverse water-filling over the eigenvalues.

    Source: Cover and Thomas 2006, "Elements of Information Theory", section 10.3.3.
    """
    variances = np.maximum(np.linalg.eigvalsh(covariance), 1e-300)
    low, high = -60.0, 60.0
    for _ in range(80):
        level = (low + high) / 2
        if np.minimum(variances, 2.0**level).sum() > variances.sum() / fidelity:
            high = level
        else:
            low = level
    return float(np.maximum(np.log2(variances / 2.0**low), 0).sum() / 2 / len(variances))


def size_of(entries: Sequence[np.ndarray], spec: ArraySpec) -> int:
    """Write entries as one shard, and return its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(uri=folder)
        with open_shard(store, spec, 0) as writer:
            for entry in entries:
                writer.append(entry)
        return Path(folder, array_object(spec.path, 0, len(spec.shape))).stat().st_size


def rows_of(features: Features) -> Iterator[list[str]]:
    """Yield the rows of the table for some features."""
    channels = features.covariance.shape[0]
    codings = [("float16", Coding(encoding="float16"), "none", 0)]
    codings += [("int8", Coding(encoding="int8", step=INT8_STEP), "zstd", level) for level in (3, 1)]
    for fidelity in FIDELITIES:
        codings.append((f"int8 at {fidelity:g}", Coding(encoding="int8", step=step_of_fidelity(fidelity)), "zstd", 1))
        latents = latents_of(features.covariance, fidelity)
        codings += [
            (f"pca8 at {fidelity:g}", Coding(encoding="pca8", latents=latents), "zstd", level) for level in LEVELS
        ]
    variance = np.mean([np.mean(view.astype(np.float64) ** 2) for view in features.numbers])
    count, halves = sum(view.size for view in features.numbers), 0.0
    for name, coding, compression, level in codings:
        entries = [as_stored(view, coding) for view in features.numbers]
        spec = ArraySpec(
            path="a",
            shape=(len(entries), *entries[0].shape),
            dtype=entries[0].dtype.name,  # type: ignore[arg-type]
            rows_per_shard=len(entries),
            compression=compression,  # type: ignore[arg-type]
            level=level or 1,
        )
        size, more, kept = 0, 0, channels
        if coding.latents is not None:
            spec = replace(spec, latents=latents_digest(coding.latents))
            kept, more = coding.latents.kept, coding.latents.basis.nbytes + coding.latents.steps.nbytes
        size = size_of(entries, spec)
        halves = halves or float(size)
        read = [as_numbers(entry, coding) for entry in entries]
        pairs = zip(read, features.numbers, strict=True)
        error = np.mean([np.mean((got.astype(np.float64) - view) ** 2) for got, view in pairs])
        lowest = lowest_rate(features.covariance, variance / error) if level else 16.0
        bits = 8 * size / count
        yield [
            features.name,
            name,
            f"zstd {level}" if level else "",
            f"{variance / error:,.4g}" if error else "exact",
            str(kept),
            f"{bits:.2f}",
            f"{halves / size:.2f}",
            f"{bits / max(lowest, 1e-9):.2f}" if level else "",
            f"{more / 1e6:.2f}",
        ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default="")
    asked = parser.parse_args()
    features = cached(asked.cache) if asked.cache else map(synthetic, (1.0, 1.5, 2.0))
    head = ["features", "stored as", "codec", "F", "numbers", "bits", "times smaller", "bits / R(D)", "latents, MB"]
    rows = [row for found in features for row in rows_of(found)]
    print("\n".join(aligned([head, *rows], left=3)))


if __name__ == "__main__":
    main()
