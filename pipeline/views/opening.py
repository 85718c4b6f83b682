"""Opening the images of views: hash the bytes of each file, read its header, and place the crop in it."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from pipeline.config import ViewsConfig
from pipeline.images.decoding import Picture, open_picture
from pipeline.images.reader import ImageReader, is_local
from pipeline.images.unusable import UnusableImageError
from pipeline.views.crop import Crop, CropDraws, crop_of, draw_for_crop
from pipeline.views.sampling import DrawnView
from storage_schemas.format.errors import MissingError, Problem

OPENED_BYTES = 4 * 2**20
"""Bytes of local image files that are opened together, before the first of them is decoded."""

ReadView = tuple[DrawnView, CropDraws, bytes | UnusableImageError]
"""A view, the random numbers of its crop, and the bytes of its image file, or why there are none to be had."""


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


def open_views(
    views: Sequence[DrawnView], reader: ImageReader, config: ViewsConfig
) -> Iterator[OpenedView | RejectedView]:
    """Read and open the images of views, and yield the views in their order.

    Local files are opened in groups: right after an image was decoded, its pixels fill the processor's cache, and
    Python code takes several times as long. Images from a network are opened one by one, as the reader delivers them.

    Memory: the files of one group. Formats that are decoded when they are opened end their group, so at most one
    decoded image waits here while the caller cuts the one before it.

    Args:
        views: what to open.
        reader: reads the files; it decides whether it does so in threads of its own.
        config: limits of an image, and how a crop is drawn.

    Raises:
        MissingError: an image cannot be read, or there is too little memory to decode it.
    """
    draws = [draw_for_crop(config, (config.seed, view.image.key, view.draw)) for view in views]
    uris = [view.image.uri for view in views]
    group_bytes = OPENED_BYTES if all(map(is_local, uris)) else 1
    files = zip(views, draws, reader.read_all(uris), strict=True)
    while group := _open_group(files, group_bytes, config):
        while group:
            yield group.popleft()  # the caller then holds the only reference to its pixels


def _open_group(files: Iterator[ReadView], group_bytes: int, config: ViewsConfig) -> deque[OpenedView | RejectedView]:
    group, size = deque[OpenedView | RejectedView](), 0
    for view, draws, body in files:
        group.append(_open_view(view, draws, body, config))
        size += 0 if isinstance(body, UnusableImageError) else len(body)
        if size >= group_bytes or _is_decoded(group[-1]):
            break
    return group


def _open_view(
    view: DrawnView, draws: CropDraws, body: bytes | UnusableImageError, config: ViewsConfig
) -> OpenedView | RejectedView:
    if isinstance(body, UnusableImageError):
        return RejectedView(view=view, error=body)
    sha256 = hashlib.sha256(body).hexdigest()  # now, while the bytes are in the processor's cache
    try:
        with naming(view):
            picture = open_picture(body, config)
    except UnusableImageError as error:
        return RejectedView(view=view, error=error)
    crop = crop_of(picture.width, picture.height, config, draws)
    return OpenedView(view=view, picture=picture, crop=crop, row=_views_row(view, picture, crop, sha256))


@contextmanager
def naming(view: DrawnView) -> Iterator[None]:
    """Name the image in a refusal for lack of memory, which says nothing about the image and ends the run.

    Raises:
        MissingError: there was too little memory.
    """
    try:
        yield
    except MemoryError as error:
        found = "there is too little memory to decode it"
        fix = "use fewer workers or a machine with more memory, then run the same command again, which resumes"
        raise MissingError("memory", [Problem(place=view.image.key, found=found, fix=fix)]) from error


def _is_decoded(view: OpenedView | RejectedView) -> bool:
    return isinstance(view, OpenedView) and bool(view.picture.decoded)


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
