"""The views of one set that are evaluated: which rows, of which images, and which part of an image a window covers."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from storage_schemas.cache import Cache
from storage_schemas.cached_views import ViewReader
from storage_schemas.format.errors import MissingError, Problem, SettingError
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.near_names import did_you_mean
from storage_schemas.format.views import Split, ViewSet
from trainer.downstream.options import ViewChoice

DRAWN = "drawn"
"""How views are placed in a cache that students are trained from; caches that record nothing are of this kind."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChosenViews:
    """Some views of one set, open for reading."""

    cache: Cache
    manifest: ViewsManifest
    reader: ViewReader
    rows: Int64[np.ndarray, " views"]
    """Row slots, ascending."""

    @property
    def view_set(self) -> ViewSet:
        """The view set."""
        return self.reader.view_set

    @property
    def identity(self) -> dict[str, Any]:
        """What tells these views from others, as JSON-ready values."""
        rows = sha256(self.rows.astype("<i8").tobytes()).hexdigest()
        return {"views": self.manifest.digest, "view_set": self.view_set.name, "rows": rows, "count": len(self.rows)}

    def facts(self, starts: Int64[np.ndarray, "views 2"]) -> dict[str, Any]:
        """Return the fields of `EvaluationFeatures` that say which part of which image each view covers.

        Args:
            starts: where each view's window starts in its canvas (row, column; patches).
        """
        table = self._described()
        boxes = np.stack([table[name].to_numpy() for name in ("left", "top", "width", "height")], axis=1)
        flips = np.array(table["flip"].to_pylist(), dtype=bool)
        return {
            "view_set": self.view_set,
            "rows": self.rows,
            "keys": tuple(table["image"].to_pylist()),
            "boxes": window_boxes(boxes, flips, self.reader.geometry, starts),
            "flips": flips,
            "image_sizes": np.stack(
                [table[name].to_numpy().astype(np.int64) for name in ("image_height", "image_width")], axis=1
            ),
        }

    def _described(self) -> pa.Table:
        """Return the lines of the views in the `views` table, shard by shard."""
        shards = self.rows // self.reader.pixels.spec.rows_per_shard
        lines = []
        for rows in np.split(self.rows, np.flatnonzero(np.diff(shards)) + 1):
            shard = int(rows[0]) // self.reader.pixels.spec.rows_per_shard
            table = self.reader.described.of([shard])[shard]
            lines.append(table.take(pa.array(np.searchsorted(table["row"].to_numpy(), rows))))
        return pa.concat_tables(lines)


def choose_views(cache: Cache, name: str, choice: ViewChoice, teachers: tuple[str, ...] = ()) -> ChosenViews:
    """Open the views of a set that are evaluated.

    Args:
        cache: the cache.
        name: name of the view set.
        choice: which of its views; see `EvaluateOptions.views`.
        teachers: teachers whose features are read, in raw units.

    Raises:
        MissingError: shards or a teacher's features are missing, or there are no such views.
        SettingError: the cache has no such view set.
    """
    manifest = require_views(cache)
    reader = cache.open_views(name, teachers=teachers, units="raw")
    rows = reader.rows(_split(manifest, choice))
    if not len(rows):
        found = "has no held-out view" if len(reader.rows()) else "has no view"
        fix = "--views all also uses views that students were trained on" if len(reader.rows()) else ""
        raise MissingError("views", [Problem(place=f"{cache.store.uri}, {name}", found=found, fix=fix)])
    return ChosenViews(cache=cache, manifest=manifest, reader=reader, rows=rows)


def require_views(cache: Cache) -> ViewsManifest:
    """Return the manifest of a cache's views.

    Raises:
        MissingError: it has no views.
    """
    manifest = cache.views_manifest()
    if manifest is None:
        raise MissingError("views", [Problem(place=cache.store.uri, found="has no views", fix="run `make views`")])
    return manifest


def chosen_sets(manifest: ViewsManifest, names: tuple[str, ...]) -> list[str]:
    """Return the names of the view sets that are evaluated, the smallest resolution first.

    Args:
        manifest: of the cache's views.
        names: those that are asked for; none for all.

    Raises:
        SettingError: the cache lacks one.
    """
    known = {view_set.name: view_set for view_set in manifest.sets}
    if unknown := [name for name in names if name not in known]:
        found = "the cache has no such view set"
        problems = [Problem(place=name, found=found, fix=did_you_mean(name, known)) for name in unknown]
        raise SettingError("--sets", problems)
    return sorted(names or known, key=lambda name: (known[name].resolution, name))


def window_boxes(
    boxes: Float64[np.ndarray, "views 4"],
    flips: np.ndarray,
    geometry: CanvasGeometry,
    starts: Int64[np.ndarray, "views 2"],
) -> Float64[np.ndarray, "views 4"]:
    """Return which part of its source image each view's window covers.

    Args:
        boxes: what became the canvases: left, top, width, height (source pixels).
        flips: whether a canvas was mirrored left to right after the cut.
        geometry: sizes of canvas and window.
        starts: where each window starts in its canvas (row, column; patches).

    Returns:
        Left, top, width, height (source pixels).
    """
    rows, columns = (starts * geometry.patch).T
    columns = np.where(flips, geometry.side - geometry.resolution - columns, columns)
    scale = boxes[:, 2:] / geometry.side
    origin = boxes[:, :2] + np.stack([columns, rows], axis=1) * scale
    return np.concatenate([origin, scale * geometry.resolution], axis=1)


def _split(manifest: ViewsManifest, choice: ViewChoice) -> Split | None:
    drawn = all(generation.views.get("placing", DRAWN) == DRAWN for generation in manifest.generations)
    return "heldout" if choice == "heldout" or (choice == "scored" and drawn) else None
