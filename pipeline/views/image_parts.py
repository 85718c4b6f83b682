"""The image list of a cache. It is stored in parts: one part for the images that each generation of views added."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import pyarrow as pa

from pipeline.images.listing import SourceImage
from storage_schemas.cache import Cache
from storage_schemas.format.identity import digest
from storage_schemas.format.layout import images_part
from storage_schemas.format.tables import IMAGES, from_parquet

Copies = Mapping[str, str]
"""Key of an image that is left out → key of the image that is kept: the first by key of those with the same bytes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """The images that one generation added."""

    images: Sequence[SourceImage]
    """In order of key, copies included."""
    copies: Copies
    """Images that are left out."""

    @property
    def kept(self) -> list[SourceImage]:
        """The images that views are drawn from: all except copies."""
        return [image for image in self.images if image.key not in self.copies]

    @property
    def identity(self) -> dict[str, Any]:
        """What the manifest records about the kept images."""
        return keys_identity(image.key for image in self.kept)

    def table(self) -> pa.Table:
        """Return the part as it is stored."""
        columns = (
            (image.key for image in self.images),
            (image.uri for image in self.images),
            (self.copies.get(image.key) for image in self.images),
        )
        return pa.table([pa.array(column, pa.string(), size=len(self.images)) for column in columns], schema=IMAGES)


def keys_identity(keys: Iterable[str]) -> dict[str, Any]:
    """Return the number of keys, and a digest of them in their order."""
    listed = list(keys)
    return {"count": len(listed), "keys_sha256": digest({"keys": listed})}


def read_part(cache: Cache, generation: int) -> ImagePart:
    """Read the images that a generation added.

    Raises:
        MissingError: the part does not exist.
        CorruptionError: it is damaged.
        ContractError: another version wrote it.
    """
    place = images_part(generation)
    [table] = cache.store.read_parsed([place], lambda body, name: from_parquet(body, IMAGES, name))
    rows = table.to_pylist()
    return ImagePart(
        images=[SourceImage(key=row["image"], uri=row["uri"]) for row in rows],
        copies={row["image"]: row["copy_of"] for row in rows if row["copy_of"] is not None},
    )
