"""Images of equal bytes: leaving out all but one of them before views are drawn, or saying how many there are."""

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
from pipeline.views.image_parts import Copies
from pipeline.views.worker import committed_views
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import in_order
from pipeline.workers.progress import Say
from storage_schemas.cache import Cache
from storage_schemas.format.layout import views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.objects.patience import Patience

IMAGES_PER_TASK = 256
SHOWN = 3
"""Groups of equal images that a line names."""
DIGEST_BYTES = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHasher:
    """The worker that reads images for their bytes alone."""

    patience: Patience
    """With a store behind a network."""
    reader: ImageReader = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", ImageReader(patience=self.patience))

    def hash(self, images: Sequence[SourceImage]) -> bytes:
        """Return the SHA-256 of each image's bytes, one after another.

        Raises:
            MissingError: an image cannot be read.
        """
        return b"".join(hashlib.sha256(body).digest() for body in self.reader.read_all([image.uri for image in images]))


def find_copies(images: Sequence[SourceImage], patience: Patience, run: RunConfig, say: Say) -> Copies:
    """Read every image, and find those whose bytes equal an earlier one's.

    Args:
        images: of some of equal bytes, the first is kept.
        patience: with a store behind a network.
        run: how the work is carried.
        say: takes lines for the user.
    """
    say(f"views: reading {len(images)} images for copies")
    tasks = [images[start : start + IMAGES_PER_TASK] for start in range(0, len(images), IMAGES_PER_TASK)]
    first: dict[bytes, str] = {}
    copies: dict[str, str] = {}
    with open_pool(partial(ImageHasher, patience=patience), replace(run, gpus=0), tasks=len(tasks)) as pool:
        digests = (one for joined in in_order(pool.run(ImageHasher.hash, tasks)) for one in _split(joined))
        for image, digest in zip(images, digests, strict=True):
            kept = first.setdefault(digest, image.key)
            if kept != image.key:
                copies[image.key] = kept
    say(f"views: {len(copies)} images left out{_examples(f'{one} = {other}' for one, other in copies.items())}")
    return copies


def equal_images(cache: Cache, manifest: ViewsManifest) -> list[list[tuple[str, str]]]:
    """Return the groups of images whose bytes are equal, from the views that are committed.

    Memory: eight bytes an image, and what there is of copies.

    Returns:
        (key, split) of each image of a group, sorted; the groups sorted.
    """
    heads = [_heads(part) for part in _first_draws(cache, manifest)]
    values, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *heads]), return_counts=True)
    if not (counts > 1).any():
        return []
    # an image whose first draw lies in two view sets, as it may after an extension, is no copy of itself
    groups: dict[str, set[tuple[str, str]]] = {}
    for part in _first_draws(cache, manifest):
        for row in part.filter(pa.array(np.isin(_heads(part), values[counts > 1]))).to_pylist():
            groups.setdefault(row["sha256"], set()).add((row["image"], row["split"]))
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def equal_images_line(groups: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Say how many images have bytes equal to another's, which come first, and how many pairs stand in both splits."""
    splits = [[split for _, split in group] for group in groups]
    pairs = sum(group.count("train") * group.count("heldout") for group in splits)
    return (
        f"views: {sum(map(len, groups))} images have bytes equal to another's"
        f"{_examples(' = '.join(key for key, _ in group) for group in groups)}; "
        f"{pairs} pairs stand in both train and heldout (--views.duplicates drop, in a new cache, leaves copies out)"
    )


def _split(joined: bytes) -> Iterator[bytes]:
    return (joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES))


def _first_draws(cache: Cache, manifest: ViewsManifest) -> Iterator[pa.Table]:
    for view_set in manifest.sets:
        for shard in cache.records(views_unit(view_set), manifest.digest):
            table = committed_views(cache, view_set, shard).select(["image", "draw", "split", "sha256"])
            yield table.filter(pc.equal(table["draw"], 0))


def _heads(part: pa.Table) -> np.ndarray:
    return np.array([int(one[:16], 16) for one in part["sha256"].to_pylist()], dtype=np.uint64)


def _examples(texts: Iterable[str]) -> str:
    shown = list(texts)
    more = ", …" if len(shown) > SHOWN else ""
    return f" ({', '.join(shown[:SHOWN])}{more})" if shown else ""
