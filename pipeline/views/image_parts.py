"""The image list as a cache keeps it: a part for the images that each generation of views brought."""

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
"""Key of an image that is left out → key of the one that is kept: the first, by key, of those with its bytes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """The images that one generation brought."""

    images: Sequence[SourceImage]
    """In order of key, copies too."""
    copies: Copies
    """Those that are left out."""

    @property
    def kept(self) -> list[SourceImage]:
        """Those that views are drawn of: copies are as if they were not there."""
        return [image for image in self.images if image.key not in self.copies]

    @property
    def identity(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return keys_identity(image.key for image in self.kept)

    def table(self) -> pa.Table:
        """Return it as it is stored."""
        columns = (
            (one.key for one in self.images),
            (one.uri for one in self.images),
            (self.copies.get(one.key) for one in self.images),
        )
        return pa.table([pa.array(column, pa.string(), size=len(self.images)) for column in columns], schema=IMAGES)


def keys_identity(keys: Iterable[str]) -> dict[str, Any]:
    """Return the digest of some images' keys, in their order, and how many there are."""
    listed = list(keys)
    return {"count": len(listed), "keys_sha256": digest({"keys": listed})}


def read_part(cache: Cache, generation: int) -> ImagePart:
    """Read the images that a generation brought.

    Raises:
        MissingError: the part is not there.
        CorruptionError: it is damaged.
        ContractError: it is of another version.
    """
    place = images_part(generation)
    [table] = cache.store.read_parsed([place], lambda body, name: from_parquet(body, IMAGES, name))
    rows = table.to_pylist()
    return ImagePart(
        images=[SourceImage(key=row["image"], uri=row["uri"]) for row in rows],
        copies={row["image"]: row["copy_of"] for row in rows if row["copy_of"] is not None},
    )
