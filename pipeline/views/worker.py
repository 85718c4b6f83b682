"""One task of the views stage: decode the images of a shard, cut their views, write what is not there yet."""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import pyarrow as pa

from pipeline.config import ViewsConfig
from pipeline.images.decoding import Picture, UnusableImageError, open_picture, prepare_cutting, quiet_decoding
from pipeline.images.reader import ImageReader, is_here
from pipeline.inventory.arrays import detail_spec, pixels_spec
from pipeline.views.crop import Crop, CropDraws, Cut, crop_of, cut_canvas, cut_window, draw_for_crop
from pipeline.views.placements import offset_key
from pipeline.views.sampling import DrawnView
from pipeline.workers.pool import Unfinished
from pipeline.workers.prefetch import behind
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, Problem
from storage_schemas.format.layout import detail_array, detail_unit, pixels_array, table_part, views_unit
from storage_schemas.format.manifest import ViewSetManifest
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.format.tables import REJECTED, VIEWS, from_parquet
from storage_schemas.format.views import ViewSet, draw_offset
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, ShardWriter, array_record, commit, open_shard, write_table_part

HANDED_BYTES = 4 * 2**20
"""Pixels that are handed to the writing thread at a time: to hand over each view costs as much as its checksum."""
OPENED_BYTES = 4 * 2**20
"""Of files on this machine that are opened one after another, before the first of them is decoded."""
Cuts = Mapping[str, Cut]
"""A view's canvas and details, by array."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedView:
    """A view whose image was read, and found fit to be cut as far as its header tells."""

    view: DrawnView
    picture: Picture
    crop: Crop
    row: dict[str, Any]
    """What the table of views says of it, but for the number of its row."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CutView:
    """A view that was cut."""

    cuts: Cuts
    row: dict[str, Any]
    """As it was when opened."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedView:
    """A view that cannot be cut."""

    view: DrawnView
    error: UnusableImageError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One fixed teacher's windows of a view set, cut at its own scale."""

    teacher: str
    side: int
    """Of a window (pixels)."""
    identity: str
    """Digest of the views and of this."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CutTask:
    """One shard of a view set, and what of it is still to be written."""

    view_set: ViewSet
    manifest: ViewSetManifest
    shard: int
    views: tuple[DrawnView, ...]
    """Views drawn for the shard, in order."""
    identity: str
    """Digest of the views."""
    canvases: bool
    """Whether the canvases and their tables are to be written; else they are committed already, and only details
    are."""
    details: tuple[Detail, ...]
    """Details to be written."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """What became of a task."""

    views: int
    rejected: int
    bytes: int
    """Bytes of the arrays written."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewCutter:
    """The worker of the views stage."""

    store: Store
    config: ViewsConfig
    reader: ImageReader = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", ImageReader(patience=self.store.patience))

    def cut(self, task: CutTask) -> Unfinished:
        """Cut a shard's views; finished, it commits what was asked for and returns a `CutReport`.

        Views that cannot be cut are recorded in `rejected`, and those after them move up: the views of a shard always
        fill its first row slots.

        Raises:
            MissingError: an image cannot be read.
            IdentityError: when it is finished: canvases were committed earlier, and the images have changed since.
        """
        prepare_cutting()
        with ExitStack() as stack:
            writers = {
                spec.path: stack.enter_context(open_shard(self.store, spec, task.shard)) for spec in _specs(task)
            }
            views, rejected = self._cut_views(task, writers)
            return Unfinished(partial(self._publish, task, stack.pop_all(), writers, views, rejected))

    def _publish(
        self,
        task: CutTask,
        being_written: ExitStack,
        writers: dict[str, ShardWriter],
        views: pa.Table,
        rejected: pa.Table,
    ) -> CutReport:
        with being_written:
            if not task.canvases:
                self._require_unchanged(task, views)
        self._commit(task, writers, views, rejected)
        size = sum(writer.sink.size for writer in writers.values())
        return CutReport(views=views.num_rows, rejected=rejected.num_rows, bytes=size)

    def _cut_views(self, task: CutTask, writers: dict[str, ShardWriter]) -> tuple[pa.Table, pa.Table]:
        slots = task.manifest.grid.slots(task.shard)
        rows: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        specs = _specs(task)
        room = max(1, HANDED_BYTES // sum(spec.entry_bytes for spec in specs))
        waiting: list[Cuts] = []
        with behind() as later, quiet_decoding():  # mirroring, checksums and writing, while the next are decoded
            for one in self._opened(task.views):
                cut = self._cut_view(task, one) if isinstance(one, OpenedView) else one
                if isinstance(cut, RejectedView):
                    rejected.append(_rejection(cut))
                    continue
                rows.append({"row": slots[len(rows)]} | cut.row)
                waiting.append(cut.cuts)
                if len(waiting) == room:
                    later(_append, writers, waiting)
                    waiting = []
            later(_append, writers, waiting)
        return pa.Table.from_pylist(rows, VIEWS), pa.Table.from_pylist(rejected, REJECTED)

    def _opened(self, views: Sequence[DrawnView]) -> Iterator[OpenedView | RejectedView]:
        """Yield views in their order, having opened some together.

        Between two images, whose pixels fill the processor's cache, what Python does takes several times as long. So
        as much of it as can be is done for many images in one go, where they lie on this machine; others come while
        those before them are cut. Held are files, and beside the image that is being cut one at most that is decoded.
        """
        draws = [draw_for_crop(self.config, (self.config.seed, view.image.key, view.draw)) for view in views]
        opened, size = deque[OpenedView | RejectedView](), 0
        uris = [view.image.uri for view in views]
        bodies, room = self.reader.read_all(uris), OPENED_BYTES if all(map(is_here, uris)) else 1
        for view, drawn, body in zip(views, draws, bodies, strict=True):
            opened.append(self._open(view, drawn, body))
            size += len(body)
            if size >= room or _is_decoded(opened[-1]):
                while opened:
                    yield opened.popleft()  # whoever takes it has the only one
                size = 0
        while opened:
            yield opened.popleft()

    def _open(self, view: DrawnView, draws: CropDraws, body: bytes) -> OpenedView | RejectedView:
        sha256 = hashlib.sha256(body).hexdigest()  # now, while the bytes are in the processor's cache
        try:
            picture = open_picture(body, self.config)
        except UnusableImageError as error:
            return RejectedView(view=view, error=error)
        crop = crop_of(picture.width, picture.height, self.config, draws)
        return OpenedView(view=view, picture=picture, crop=crop, row=_row(view, picture, crop, sha256))

    def _cut_view(self, task: CutTask, opened: OpenedView) -> CutView | RejectedView:
        try:
            cuts = dict(self._cuts(task, opened))  # all, before any is written
        except UnusableImageError as error:
            return RejectedView(view=opened.view, error=error)
        opened.picture.decoded.clear()  # the next image needs the room
        return CutView(cuts=cuts, row=opened.row)

    def _cuts(self, task: CutTask, opened: OpenedView) -> Iterator[tuple[str, Cut]]:
        geometry, image = task.manifest.geometry, opened.view.image
        if task.canvases:
            yield pixels_array(task.view_set), cut_canvas(opened.picture, opened.crop, geometry.side)
        for detail in task.details:
            key = offset_key(self.config.seed, image.key, opened.view.draw, detail.teacher)
            offset = draw_offset(geometry, self.config.teacher_shifts, key)
            window = cut_window(opened.picture, opened.crop, geometry, offset, detail.side)
            yield detail_array(task.view_set, detail.teacher), window

    def _require_unchanged(self, task: CutTask, views: pa.Table) -> None:
        name = table_part("views", task.view_set.name, task.shard)
        [committed] = self.store.read_parsed([name], lambda body, place: from_parquet(body, VIEWS, place))
        if not committed.equals(views):
            found = "its images are not those that its canvases were cut from"
            fix = "bring the images back as they were, or make a new cache"
            raise IdentityError("view shard", [Problem(place=name, found=found, fix=fix)])

    def _commit(self, task: CutTask, writers: dict[str, ShardWriter], views: pa.Table, rejected: pa.Table) -> None:
        if task.canvases:
            key = ShardKey(unit=views_unit(task.view_set), shard=task.shard, identity=task.identity)
            first_row = task.manifest.grid.slots(task.shard).start
            parts = [
                write_table_part(self.store, table_part(name, task.view_set.name, task.shard), table, first_row, key)
                for name, table in (("views", views), ("rejected", rejected))
            ]
            commit(self.store, key, [array_record(writers[pixels_array(task.view_set)], key), *parts])
        for detail in task.details:
            key = ShardKey(unit=detail_unit(task.view_set, detail.teacher), shard=task.shard, identity=detail.identity)
            commit(self.store, key, [array_record(writers[detail_array(task.view_set, detail.teacher)], key)])


def committed_views(cache: Cache, view_set: ViewSet, shard: int) -> pa.Table:
    """Return the `views` rows of one committed shard."""
    name = table_part("views", view_set.name, shard)
    [table] = cache.store.read_parsed([name], lambda body, place: from_parquet(body, VIEWS, place))
    return table


def _specs(task: CutTask) -> list[ArraySpec]:
    canvases = [pixels_spec(task.view_set, task.manifest)] if task.canvases else []
    return canvases + [detail_spec(task.view_set, task.manifest, one.teacher, one.side) for one in task.details]


def _append(writers: Mapping[str, ShardWriter], views: Sequence[Cuts]) -> None:
    for path, writer in writers.items():
        writer.append_all(cuts[path].pixels() for cuts in views)


def _is_decoded(one: OpenedView | RejectedView) -> bool:
    return isinstance(one, OpenedView) and bool(one.picture.decoded)


def _row(view: DrawnView, picture: Picture, crop: Crop, sha256: str) -> dict[str, Any]:
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


def _rejection(one: RejectedView) -> dict[str, Any]:
    view, error = one.view, one.error
    return {"image": view.image.key, "draw": view.draw, "reason": error.reason, "detail": error.detail}
