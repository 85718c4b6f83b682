"""Opening the images of views: hash the bytes of each file, read its header, and place the crop in it."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from pipeline.config import ViewsConfig
from pipeline.images.decoding import Picture, open_picture
from pipeline.images.listing import SourceImage
from pipeline.images.reader import ImageReader, is_local
from pipeline.images.unusable import UnusableImageError
from pipeline.views.crop import Crop, draw_crop
from pipeline.views.order import DrawnView
from storage_schemas.format.errors import MissingError, Problem

OPENED_BYTES = 4 * 2**20
"""Bytes of local image files that are opened together, before the first of them is decoded."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageViews:
    """The views of one image that are cut while it is at hand."""

    image: SourceImage
    views: tuple[tuple[int, DrawnView], ...]
    """Each view, with the number of its shard in the task."""


ReadImage = tuple[ImageViews, bytes | UnusableImageError]
"""An image with the bytes of its file, or why there are none to be had."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedView:
    """A view whose image file was read. Its header does not speak against cutting it."""

    view: DrawnView
    picture: Picture
    crop: Crop
    row: dict[str, Any]
    """Its row of the `views` table, without the number of the row."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedView:
    """A view that cannot be cut, because its image is unusable."""

    view: DrawnView
    error: UnusableImageError

    @property
    def row(self) -> dict[str, Any]:
        """Its row of the `rejected` table."""
        reason, detail = self.error.reason, self.error.detail
        return {"image": self.view.image.key, "draw": self.view.draw, "reason": reason, "detail": detail}


Opened = Sequence[tuple[int, OpenedView | RejectedView]]
"""The views of one image, whose header was read, each with the number of its shard in the task."""


def open_images(images: Sequence[ImageViews], reader: ImageReader, config: ViewsConfig) -> Iterator[Opened]:
    """Read and open images, and yield the views of each, in their order.

    Local files are opened in groups: right after an image was decoded, its pixels fill the processor's cache, and
    Python code takes several times as long. Images from a network are opened one by one, as the reader delivers them.

    Memory: the files of one group. Formats that are decoded when they are opened end their group, so at most one
    decoded image waits here while the caller cuts the one before it.

    Args:
        images: what to open.
        reader: reads the files; it decides whether it does so in threads of its own.
        config: limits of an image, and how a crop is drawn.

    Raises:
        MissingError: an image cannot be read, or there is too little memory to decode it.
    """
    group_bytes = OPENED_BYTES if all(is_local(image.image.uri) for image in images) else 1
    files = read_images(images, reader)
    while group := _open_group(files, group_bytes, config):
        while group:
            yield group.popleft()  # the caller then holds the only reference to its pixels


def read_images(images: Sequence[ImageViews], reader: ImageReader) -> Iterator[ReadImage]:
    """Yield the images with the bytes of their files, in their order."""
    return zip(images, reader.read_all([image.image.uri for image in images]), strict=True)


def _open_group(files: Iterator[ReadImage], group_bytes: int, config: ViewsConfig) -> deque[Opened]:
    group, size = deque[Opened](), 0
    for image, body in files:
        group.append(open_image(image, body, config))
        size += 0 if isinstance(body, UnusableImageError) else len(body)
        if size >= group_bytes or _is_decoded(group[-1]):
            break
    return group


def open_image(image: ImageViews, body: bytes | UnusableImageError, config: ViewsConfig) -> Opened:
    """Read the header of an image file, and place the crops of its views in it.

    Args:
        image: the views.
        body: the file, or why there is none to be had.
        config: limits of an image, and how a crop is drawn.

    Raises:
        MissingError: there is too little memory to decode it.
    """
    if isinstance(body, UnusableImageError):
        return _rejected(image, body)
    sha256 = hashlib.sha256(body).hexdigest()  # now, while the bytes are in the processor's cache
    try:
        with naming(image.image):
            picture = open_picture(body, config)
    except UnusableImageError as error:
        return _rejected(image, error)
    return [(shard, _open_view(view, picture, sha256, config)) for shard, view in image.views]


def _rejected(image: ImageViews, error: UnusableImageError) -> Opened:
    return [(shard, RejectedView(view=view, error=error)) for shard, view in image.views]


def _open_view(view: DrawnView, picture: Picture, sha256: str, config: ViewsConfig) -> OpenedView:
    crop = draw_crop(picture.width, picture.height, config, (config.seed, view.image.key, view.draw))
    return OpenedView(view=view, picture=picture, crop=crop, row=_views_row(view, picture, crop, sha256))


@contextmanager
def naming(image: SourceImage) -> Iterator[None]:
    """Name the image in a refusal for lack of memory, which says nothing about the image and ends the run.

    Raises:
        MissingError: there was too little memory.
    """
    try:
        yield
    except MemoryError as error:
        found = "there is too little memory to decode it"
        fix = "use fewer workers or a machine with more memory, then run the same command again, which resumes"
        raise MissingError("memory", [Problem(place=image.key, found=found, fix=fix)]) from error


def _is_decoded(opened: Opened) -> bool:
    return any(isinstance(view, OpenedView) and bool(view.picture.decoded) for _, view in opened)


def _views_row(view: DrawnView, picture: Picture, crop: Crop, sha256: str) -> dict[str, Any]:
    return {
        "image": view.image.key,
        "draw": view.draw,
        "split": view.split,
        "sha256": sha256,
        "left": crop.left,
        "top": crop.top,
        "width": crop.width,
        "height": crop.height,
        "flip": crop.flip,
        "image_height": picture.height,
        "image_width": picture.width,
    }
