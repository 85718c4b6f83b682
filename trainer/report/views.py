"""The held-out views on the page, with the stored features of each teacher."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, UInt8

from storage_schemas.format import layout
from storage_schemas.format.encodings import as_numbers
from storage_schemas.format.views import ViewSet
from storage_schemas.open_shards import UnitRecords
from trainer.data.set_source import SetSource
from trainer.data.source import Source

AT_MOST = 12
"""Largest number of views on the page, unless there are more view sets."""
CHOSEN_FROM = 1000
"""Held-out views of a view set that those on the page are chosen from."""
AT_MOST_OF_A_SET = 4
"""Largest number of views of one view set."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherWindow:
    """One teacher's window of a view, and its features."""

    start: tuple[int, int]
    """Start of the window in the canvas (row, column; patches)."""
    features: Float[np.ndarray, "rows cols channels"]
    """Stored tokens (PHI-S units)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PicturedView:
    """One held-out view."""

    view_set: ViewSet
    row: int
    image: str
    """Key of the image that the view was cut from."""
    draw: int
    canvas: UInt8[np.ndarray, "side side 3"]
    teachers: Mapping[str, TeacherWindow]
    """By teacher: those that have features of the view set."""


def pictured_views(source: Source) -> list[PicturedView]:
    """Choose and read a few held-out views of each view set, of as many different images as possible."""
    per_set = min(max(AT_MOST // len(source.sets), 1), AT_MOST_OF_A_SET)
    return [view for view_set, found in source.sets.items() for view in _pictured(source, view_set, found, per_set)]


def of_many_images(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows of a `views` table so that every image comes once before any image comes a second time."""
    views_of_image: Counter[str] = Counter()
    rounds = []
    for row in rows:
        rounds.append(views_of_image[row["image"]])
        views_of_image[row["image"]] += 1
    return [row for _, row in sorted(zip(rounds, rows, strict=True), key=lambda pair: pair[0])]


def _pictured(source: Source, view_set: ViewSet, set_source: SetSource, count: int) -> list[PicturedView]:
    rows = set_source.rows["heldout"][:CHOSEN_FROM]
    table = source.cache.views(view_set, set_source.commits.open(np.unique(rows // set_source.rows_per_shard).tolist()))
    heldout = table.filter(pc.is_in(table["row"], pa.array(rows))).select(["row", "image", "draw"]).to_pylist()
    chosen = of_many_images(heldout)[:count]
    canvases = _read(source, layout.pixels_array(view_set), set_source.commits, chosen)
    stored = {
        name: as_numbers(_read(source, layout.spatial_array(view_set, name), features.commits, chosen), features.coding)
        for name, features in set_source.features.items()
    }
    return [
        PicturedView(
            view_set=view_set,
            row=view["row"],
            image=view["image"],
            draw=view["draw"],
            canvas=canvases[place],
            teachers={
                name: TeacherWindow(
                    start=tuple(set_source.features[name].offsets[view["row"]].tolist()), features=features[place]
                )
                for name, features in stored.items()
            },
        )
        for place, view in enumerate(chosen)
    ]


def _read(source: Source, path: str, commits: UnitRecords, views: Sequence[dict[str, Any]]) -> np.ndarray:
    return source.cache.array(path, commits).read([view["row"] for view in views])
