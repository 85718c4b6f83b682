"""The worker of the views stage: cut the views of some shards, write the arrays that are missing, commit them."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, final

import pyarrow as pa

from pipeline.config import ViewsConfig
from pipeline.images.decoding import pixels_of, prepare_cutting, quiet_decoding
from pipeline.images.reader import ImageReader
from pipeline.images.unusable import UnusableImageError
from pipeline.views.crop import Cut, cut_canvas, cut_window
from pipeline.views.decoding_room import DecodingRoom
from pipeline.views.opening import (
    ImageViews,
    Opened,
    OpenedView,
    ReadImage,
    RejectedView,
    naming,
    open_image,
    open_images,
    read_images,
)
from pipeline.views.order import image_rank
from pipeline.views.placements import offset_key
from pipeline.views.shard_task import CutReport, CutTask, ShardTask
from pipeline.workers.pool import Unfinished
from pipeline.workers.prefetch import ahead, behind
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, Problem
from storage_schemas.format.layout import detail_array, detail_unit, pixels_array, table_part, views_unit
from storage_schemas.format.tables import REJECTED, VIEWS
from storage_schemas.format.views import draw_offset
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, ShardWriter, array_record, commit, open_shard, write_table_part

BATCH_BYTES = 4 * 2**20
"""Pixels that go to the writing thread in one call: a call for each view would cost as much as its checksum."""
LEAST_BATCH_BYTES = 2**19
"""The same, where many shards are open at a time."""
PUBLISHED_LATER = 2
"""Shards that may wait to be published while the next views are cut."""

Cuts = Mapping[str, Cut]
"""The canvas and the details of a view, by array."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CutView:
    """A view that was cut."""

    cuts: Cuts
    row: dict[str, Any]
    """Its row of the `views` table, without the number of the row."""


CutImage = Sequence[tuple[int, CutView | RejectedView]]
"""The views of one image, each with the number of its shard in the task."""


@final
@dataclass(slots=True, kw_only=True, eq=False)
class OpenShard:
    """A shard of which views were cut, but not yet all."""

    task: ShardTask
    files: ExitStack
    """The open writers: to leave it publishes their objects, or removes them when an exception is raised."""
    writers: Mapping[str, ShardWriter]
    """Writer of each array."""
    batch_size: int
    """Views that are written together."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the `views` table."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the `rejected` table."""
    batch: list[Cuts] = field(default_factory=list)
    """Views that are not yet written."""

    @property
    def is_complete(self) -> bool:
        """Whether all of its views were added."""
        return len(self.rows) + len(self.rejected) == len(self.task.views)

    def add(self, view: CutView | RejectedView) -> Sequence[Cuts]:
        """Add the next of its views, and return the views that are to be written now."""
        if isinstance(view, RejectedView):
            self.rejected.append(view.row)
        else:
            self.rows.append({"row": self.task.manifest.grid.slots(self.task.shard)[len(self.rows)]} | view.row)
            self.batch.append(view.cuts)
        if len(self.batch) < self.batch_size and not self.is_complete:
            return ()
        ready, self.batch = self.batch, []
        return ready


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WrittenShard:
    """A shard whose entries are written, but not yet published nor committed."""

    task: ShardTask
    files: ExitStack
    """The open writers, as in `OpenShard`."""
    writers: Mapping[str, ShardWriter]
    """Writer of each array."""
    views: pa.Table
    """The shard's part of the `views` table."""
    rejected: pa.Table
    """The shard's part of the `rejected` table."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewCutter:
    """Cuts shards of views.

    An image passes through these threads, in this order:

    - reading threads, for images that are not on this machine (`ImageReader.read_all`); local files are read by the
      worker's own thread;
    - the worker's own thread opens and decodes the image, and crops and resizes each of its views (`open_images`,
      `_cut_image`); with more than one thread, that many threads do so for as many images;
    - one writing thread mirrors, computes checksums and writes (`_append`), while the next images are decoded;
    - a thread publishes and commits each shard (`_publish`), while the next is cut.

    The results do not depend on the number of threads: views are added to their shards in the order of the images.
    """

    store: Store
    config: ViewsConfig
    threads: int = 1
    """Threads that decode and cut. Together they decode no more pixels at a time than one image may have."""
    reader: ImageReader = field(init=False)
    room: DecodingRoom = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", ImageReader(retries=self.store.retries))
        object.__setattr__(self, "room", DecodingRoom(self.config.max_pixels))

    def cut(self, task: CutTask) -> Unfinished[CutReport]:
        """Cut the views of some shards, and write, publish and commit each shard as soon as it is complete.

        Views that cannot be cut are recorded in `rejected`, and those after them move up: the views of a shard always
        fill its first row slots.

        Returns:
            What is left to do: wait until the last shards are committed, and return a `CutReport`.

        Raises:
            MissingError: an image cannot be read, or there is too little memory to decode it.
            IdentityError: the canvases were committed earlier, and the images have changed since; mostly raised by
                finishing.
        """
        prepare_cutting()
        publisher, reports = ThreadPoolExecutor(1), list[Future[CutReport]]()
        try:
            self._cut_shards(task, publisher, reports)
        except BaseException:
            publisher.shutdown()  # what is complete is still committed
            raise
        return Unfinished(partial(_finished, publisher, reports))

    def _cut_shards(self, task: CutTask, publisher: ThreadPoolExecutor, reports: list[Future[CutReport]]) -> None:
        opened = dict[int, OpenShard]()
        with ExitStack() as unfinished, behind() as write_later, quiet_decoding():
            for number, view in self._cut_views(task):
                if number not in opened:
                    opened[number] = self._open_shard(task, number)
                    unfinished.push(opened[number].files)
                shard = opened[number]
                if ready := shard.add(view):
                    write_later(_append, shard.writers, ready)
                if shard.is_complete:
                    write_later(self._publish_later, opened.pop(number), publisher, reports)

    def _open_shard(self, task: CutTask, number: int) -> OpenShard:
        shard = task.shards[number]
        with ExitStack() as files:
            writers = {
                spec.path: files.enter_context(open_shard(self.store, spec, shard.shard)) for spec in shard.arrays
            }
            batch = max(BATCH_BYTES // len(task.shards), LEAST_BATCH_BYTES)
            batch_size = max(1, batch // sum(spec.entry_bytes for spec in shard.arrays))
            return OpenShard(task=shard, files=files.pop_all(), writers=writers, batch_size=batch_size)

    def _cut_views(self, task: CutTask) -> Iterator[tuple[int, CutView | RejectedView]]:
        """Yield every view with the number of its shard in the task: image after image, and in each shard in order."""
        images = _images_of(task, self.config.seed)
        cut: Iterator[CutImage]
        if self.threads == 1:
            cut = map(partial(self._cut_image, task), open_images(images, self.reader, self.config))
        else:
            read = read_images(images, self.reader)
            cut = ahead(partial(self._open_and_cut, task), read, depth=self.threads, threads=self.threads)
        for views in cut:
            yield from views

    def _open_and_cut(self, task: CutTask, read: ReadImage) -> CutImage:
        image, body = read
        pixels = 0 if isinstance(body, UnusableImageError) else pixels_of(body)
        with self.room.taken(pixels):
            return self._cut_image(task, open_image(image, body, self.config))

    def _cut_image(self, task: CutTask, opened: Opened) -> CutImage:
        cut = list[tuple[int, CutView | RejectedView]]()
        for number, view in opened:
            cut.append((number, self._cut_view(task.shards[number], view) if isinstance(view, OpenedView) else view))
        for _, view in opened:
            if isinstance(view, OpenedView):
                view.picture.decoded.clear()  # free the memory for the next image
        return cut

    def _cut_view(self, task: ShardTask, opened: OpenedView) -> CutView | RejectedView:
        try:
            with naming(opened.view.image):
                cuts = dict(self._cuts(task, opened))  # all of them before any is written
        except UnusableImageError as error:
            return RejectedView(view=opened.view, error=error)
        return CutView(cuts=cuts, row=opened.row)

    def _cuts(self, task: ShardTask, opened: OpenedView) -> Iterator[tuple[str, Cut]]:
        geometry, image = task.manifest.geometry, opened.view.image
        if task.canvases:
            yield pixels_array(task.view_set), cut_canvas(opened.picture, opened.crop, geometry.side)
        for detail in task.details:
            key = offset_key(self.config.seed, image.key, opened.view.draw, detail.teacher)
            offset = draw_offset(geometry, self.config.teacher_shifts, key)
            window = cut_window(opened.picture, opened.crop, geometry, offset, detail.side)
            yield detail_array(task.view_set, detail.teacher), window

    def _publish_later(
        self, opened: OpenShard, publisher: ThreadPoolExecutor, reports: list[Future[CutReport]]
    ) -> None:
        """Have a complete shard published, once at most one other waits for that."""
        if len(reports) >= PUBLISHED_LATER:
            reports[-PUBLISHED_LATER].result()
        shard = WrittenShard(
            task=opened.task,
            files=opened.files.pop_all(),
            writers=opened.writers,
            views=pa.Table.from_pylist(opened.rows, VIEWS),
            rejected=pa.Table.from_pylist(opened.rejected, REJECTED),
        )
        reports.append(publisher.submit(self._publish, shard))

    def _publish(self, shard: WrittenShard) -> CutReport:
        """Give the shard's objects their names, then commit them."""
        with shard.files:
            if not shard.task.canvases:
                self._require_unchanged(shard)
        if shard.task.canvases:
            self._commit_canvases(shard)
        self._commit_details(shard)
        size = sum(writer.sink.size for writer in shard.writers.values())
        views, rejected = shard.views.num_rows, shard.rejected.num_rows
        newly = rejected if shard.task.canvases else 0
        return CutReport(views=views, rejected=rejected, newly_rejected=newly, bytes=size)

    def _require_unchanged(self, shard: WrittenShard) -> None:
        """Refuse details whose images are not those of the committed canvases."""
        task = shard.task
        if not Cache(store=self.store).shard_views(task.view_set, task.shard).equals(shard.views):
            place = table_part("views", task.view_set.name, task.shard)
            found = "its canvases were cut from other images than those that are there now"
            fix = "restore the images as they were, or make a new cache"
            raise IdentityError("view shard", [Problem(place=place, found=found, fix=fix)])

    def _commit_canvases(self, shard: WrittenShard) -> None:
        task = shard.task
        key = ShardKey(unit=views_unit(task.view_set), shard=task.shard, identity=task.identity)
        first_row = task.manifest.grid.slots(task.shard).start
        tables = [
            write_table_part(self.store, table_part(name, task.view_set.name, task.shard), table, first_row, key)
            for name, table in (("views", shard.views), ("rejected", shard.rejected))
        ]
        commit(self.store, key, [array_record(shard.writers[pixels_array(task.view_set)], key), *tables])

    def _commit_details(self, shard: WrittenShard) -> None:
        task = shard.task
        for detail in task.details:
            key = ShardKey(unit=detail_unit(task.view_set, detail.teacher), shard=task.shard, identity=detail.identity)
            writer = shard.writers[detail_array(task.view_set, detail.teacher)]
            commit(self.store, key, [array_record(writer, key)])


def _images_of(task: CutTask, seed: int) -> list[ImageViews]:
    """Return the images of a task with their views: all shards are walked at once, each in its own order."""
    walks = (
        [(image_rank(view, seed), number, view) for view in shard.views] for number, shard in enumerate(task.shards)
    )
    views = heapq.merge(*walks, key=itemgetter(0))
    return [
        ImageViews(image=image, views=tuple((number, view) for _, number, view in of_image))
        for image, of_image in groupby(views, lambda walked: walked[2].image)
    ]


def _finished(publisher: ThreadPoolExecutor, reports: Sequence[Future[CutReport]]) -> CutReport:
    with publisher:
        done = [report.result() for report in reports]
    names = ("views", "rejected", "newly_rejected", "bytes")
    return CutReport(**{name: sum(getattr(report, name) for report in done) for name in names})


def _append(writers: Mapping[str, ShardWriter], views: Sequence[Cuts]) -> None:
    for path, writer in writers.items():
        writer.append_all(cuts[path].pixels() for cuts in views)
