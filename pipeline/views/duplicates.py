"""Images of equal bytes: they are left out before views are drawn, or reported after views are cut."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.images.listing import SourceImage
from pipeline.images.reader import ImageReader
from pipeline.images.unusable import UnusableImageError
from pipeline.views.image_parts import Copies
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import in_order
from pipeline.workers.progress import Say
from storage_schemas.cache import Cache
from storage_schemas.format.errors import first_few
from storage_schemas.format.layout import views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.objects.retry_policy import RetryPolicy

IMAGES_PER_TASK = 256
EXAMPLES = 3
"""Groups of equal images that a line names."""
DIGEST_BYTES = 32
PREFIX_DIGITS = 16
"""Hexadecimal digits of a SHA-256 that are compared first: they fit into 64 bits."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHasher:
    """The worker that reads images only to hash their bytes."""

    retries: RetryPolicy
    """How long a store behind a network may fail."""
    reader: ImageReader = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", ImageReader(retries=self.retries))

    def hash(self, images: Sequence[SourceImage]) -> bytes:
        """Return the SHA-256 of each image's bytes, joined.

        Raises:
            MissingError: an image cannot be read.
        """
        uris = [image.uri for image in images]
        read = zip(uris, self.reader.read_all(uris), strict=True)
        # an image that is not to be had equals no other
        bodies = (uri.encode() if isinstance(body, UnusableImageError) else body for uri, body in read)
        return b"".join(hashlib.sha256(body).digest() for body in bodies)


def find_copies(images: Sequence[SourceImage], retries: RetryPolicy, run: RunConfig, say: Say) -> Copies:
    """Read every image, and find those whose bytes equal those of an earlier image.

    Args:
        images: the images; of several with equal bytes the first is kept.
        retries: how long a store behind a network may fail.
        run: how the work is carried out.
        say: takes lines for the user.
    """
    say(f"views: reading {len(images)} images to find copies")
    tasks = [images[start : start + IMAGES_PER_TASK] for start in range(0, len(images), IMAGES_PER_TASK)]
    first: dict[bytes, str] = {}
    copies: dict[str, str] = {}
    with open_pool(partial(ImageHasher, retries=retries), replace(run, gpus=0), tasks=len(tasks)) as pool:
        digests = (digest for joined in in_order(pool.run(ImageHasher.hash, tasks)) for digest in _split(joined))
        for image, digest in zip(images, digests, strict=True):
            kept = first.setdefault(digest, image.key)
            if kept != image.key:
                copies[image.key] = kept
    say(f"views: {len(copies)} copies left out{_examples(f'{copy} = {kept}' for copy, kept in copies.items())}")
    return copies


def equal_images(cache: Cache, manifest: ViewsManifest) -> list[list[tuple[str, str]]]:
    """Return the groups of images whose bytes are equal, from the views that are committed.

    Memory: eight bytes for each image, and the rows of images that may be equal.

    Returns:
        (key, split) of each image of a group, sorted; the groups sorted.
    """
    prefixes = [_prefixes(part) for part in _first_draws(cache, manifest)]
    values, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *prefixes]), return_counts=True)
    if not (counts > 1).any():
        return []
    # after an extension the first draw of an image may lie in two view sets: the image is no copy of itself
    groups: dict[str, set[tuple[str, str]]] = {}
    for part in _first_draws(cache, manifest):
        for row in part.filter(pa.array(np.isin(_prefixes(part), values[counts > 1]))).to_pylist():
            groups.setdefault(row["sha256"], set()).add((row["image"], row["split"]))
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def equal_images_line(groups: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Say how many images have the bytes of another image, name some, and count the pairs that are in both splits."""
    splits = [[split for _, split in group] for group in groups]
    pairs = sum(group.count("train") * group.count("heldout") for group in splits)
    return (
        f"views: {sum(map(len, groups))} images have the same bytes as another image"
        f"{_examples(' = '.join(key for key, _ in group) for group in groups)}; in {pairs} pairs one image is in train "
        "and the other in heldout (in a new cache, --views.duplicates drop leaves copies out)"
    )


def _split(joined: bytes) -> Iterator[bytes]:
    return (joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES))


def _first_draws(cache: Cache, manifest: ViewsManifest) -> Iterator[pa.Table]:
    for view_set in manifest.sets:
        for shard in cache.records(views_unit(view_set), manifest.digest):
            table = cache.shard_views(view_set, shard).select(["image", "draw", "split", "sha256"])
            yield table.filter(pc.equal(table["draw"], 0))


def _prefixes(part: pa.Table) -> np.ndarray:
    return np.array([int(sha256[:PREFIX_DIGITS], 16) for sha256 in part["sha256"].to_pylist()], dtype=np.uint64)


def _examples(texts: Iterable[str]) -> str:
    shown = first_few(texts, EXAMPLES)
    return f" ({', '.join(shown)})" if shown else ""
