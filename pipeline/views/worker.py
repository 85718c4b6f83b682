"""The worker of the views stage: cut the views of one shard, write the arrays that are missing, commit them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import pyarrow as pa

from pipeline.config import ViewsConfig
from pipeline.images.decoding import prepare_cutting, quiet_decoding
from pipeline.images.reader import ImageReader
from pipeline.images.unusable import UnusableImageError
from pipeline.views.crop import Cut, cut_canvas, cut_window
from pipeline.views.opening import OpenedView, RejectedView, naming, open_views
from pipeline.views.placements import offset_key
from pipeline.views.shard_task import CutReport, CutTask
from pipeline.workers.pool import Unfinished
from pipeline.workers.prefetch import behind
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, Problem
from storage_schemas.format.layout import detail_array, detail_unit, pixels_array, table_part, views_unit
from storage_schemas.format.tables import REJECTED, VIEWS
from storage_schemas.format.views import draw_offset
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, ShardWriter, array_record, commit, open_shard, write_table_part

BATCH_BYTES = 4 * 2**20
"""Pixels that go to the writing thread in one call: a call for each view would cost as much as its checksum."""

Cuts = Mapping[str, Cut]
"""The canvas and the details of a view, by array."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CutView:
    """A view that was cut."""

    cuts: Cuts
    row: dict[str, Any]
    """Its row of the `views` table, without the number of the row."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WrittenShard:
    """A shard whose entries are written, but not yet published nor committed."""

    task: CutTask
    files: ExitStack
    """The open writers: to leave it publishes their objects, or removes them when an exception is raised."""
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

    A view passes through these threads, in this order:

    - reading threads, for images that are not on this machine (`ImageReader.read_all`); local files are read by the
      worker's own thread;
    - the worker's own thread opens, decodes, crops and resizes (`open_views`, `_cut_view`);
    - one writing thread mirrors, computes checksums and writes (`_append`), while the next views are decoded;
    - a thread of the pool publishes and commits the shard (`_publish`), while the next shard is cut.
    """

    store: Store
    config: ViewsConfig
    reader: ImageReader = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", ImageReader(retries=self.store.retries))

    def cut(self, task: CutTask) -> Unfinished[CutReport]:
        """Cut the views of a shard and write their pixels.

        Views that cannot be cut are recorded in `rejected`, and those after them move up: the views of a shard always
        fill its first row slots.

        Returns:
            What is left to do: publish and commit the shard, and return a `CutReport`.

        Raises:
            MissingError: an image cannot be read, or there is too little memory to decode it.
            IdentityError: raised by finishing: the canvases were committed earlier, and the images have changed since.
        """
        prepare_cutting()
        with ExitStack() as files:
            writers = {spec.path: files.enter_context(open_shard(self.store, spec, task.shard)) for spec in task.arrays}
            views, rejected = self._write_views(task, writers)
            shard = WrittenShard(task=task, files=files.pop_all(), writers=writers, views=views, rejected=rejected)
            return Unfinished(partial(self._publish, shard))

    def _write_views(self, task: CutTask, writers: Mapping[str, ShardWriter]) -> tuple[pa.Table, pa.Table]:
        """Cut all views and write their pixels; return the shard's parts of the `views` and `rejected` tables."""
        slots = task.manifest.grid.slots(task.shard)
        batch_size = max(1, BATCH_BYTES // sum(spec.entry_bytes for spec in task.arrays))
        rows, rejected, batch = list[dict[str, Any]](), list[dict[str, Any]](), list[Cuts]()
        with behind() as write_later, quiet_decoding():
            for view in self._cut_views(task):
                if isinstance(view, RejectedView):
                    rejected.append(view.row)
                    continue
                rows.append({"row": slots[len(rows)]} | view.row)
                batch.append(view.cuts)
                if len(batch) == batch_size:
                    write_later(_append, writers, batch)
                    batch = []
            write_later(_append, writers, batch)
        return pa.Table.from_pylist(rows, VIEWS), pa.Table.from_pylist(rejected, REJECTED)

    def _cut_views(self, task: CutTask) -> Iterator[CutView | RejectedView]:
        for view in open_views(task.views, self.reader, self.config):
            yield self._cut_view(task, view) if isinstance(view, OpenedView) else view

    def _cut_view(self, task: CutTask, opened: OpenedView) -> CutView | RejectedView:
        try:
            with naming(opened.view):
                cuts = dict(self._cuts(task, opened))  # all of them before any is written
        except UnusableImageError as error:
            return RejectedView(view=opened.view, error=error)
        opened.picture.decoded.clear()  # free the memory for the next image
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

    def _publish(self, shard: WrittenShard) -> CutReport:
        """Give the shard's objects their names, then commit them."""
        with shard.files:
            if not shard.task.canvases:
                self._require_unchanged(shard)
        if shard.task.canvases:
            self._commit_canvases(shard)
        self._commit_details(shard)
        size = sum(writer.sink.size for writer in shard.writers.values())
        return CutReport(views=shard.views.num_rows, rejected=shard.rejected.num_rows, bytes=size)

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


def _append(writers: Mapping[str, ShardWriter], views: Sequence[Cuts]) -> None:
    for path, writer in writers.items():
        writer.append_all(cuts[path].pixels() for cuts in views)
