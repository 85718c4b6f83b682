"""The held-out views that are pictured, with what each teacher said of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float, UInt8

from storage_schemas.format import layout
from storage_schemas.format.views import ViewSet
from trainer.data.set_source import Commits, SetSource
from trainer.data.source import Source

AT_MOST = 12
"""Views pictured in all, where every set can have one."""
AT_MOST_OF_A_SET = 4
"""Views pictured of one set."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenWindow:
    """What one teacher said of one view."""

    start: tuple[int, int]
    """Start of its window in the canvas (row, column; patches)."""
    features: Float[np.ndarray, "rows cols channels"]
    """Its tokens (PHI-S units)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PicturedView:
    """One held-out view."""

    view_set: ViewSet
    row: int
    image: str
    """Key of the image that it was cut from."""
    draw: int
    canvas: UInt8[np.ndarray, "side side 3"]
    seen: Mapping[str, SeenWindow]
    """By teacher: those that have seen the set."""


def pictured_views(source: Source) -> list[PicturedView]:
    """Choose and read a few held-out views of each set, in order of set: the first, of as many images as can be."""
    each = min(max(AT_MOST // len(source.sets), 1), AT_MOST_OF_A_SET)
    return [view for view_set, one in source.sets.items() for view in _pictured(source, view_set, one, each)]


def of_many_images(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows of a `views` table so that every image comes once before any comes again."""
    seen: Counter[str] = Counter()
    rounds = []
    for row in rows:
        rounds.append(seen[row["image"]])
        seen[row["image"]] += 1
    return [row for _, row in sorted(zip(rounds, rows, strict=True), key=lambda pair: pair[0])]


def _pictured(source: Source, view_set: ViewSet, one: SetSource, count: int) -> list[PicturedView]:
    table = source.cache.views(view_set, one.commits)
    heldout = table.filter(pc.equal(table["split"], "heldout")).select(["row", "image", "draw"]).to_pylist()
    chosen = of_many_images(heldout)[:count]
    canvases = _read(source, layout.pixels_array(view_set), one.commits, chosen)
    said = {
        name: _read(source, layout.spatial_array(view_set, name), seen.commits, chosen)
        for name, seen in one.features.items()
    }
    return [
        PicturedView(
            view_set=view_set,
            row=view["row"],
            image=view["image"],
            draw=view["draw"],
            canvas=canvases[place],
            seen={
                name: SeenWindow(start=tuple(one.features[name].offsets[view["row"]].tolist()), features=maps[place])
                for name, maps in said.items()
            },
        )
        for place, view in enumerate(chosen)
    ]


def _read(source: Source, path: str, commits: Commits, views: Sequence[dict[str, Any]]) -> np.ndarray:
    return source.cache.array(path, commits).read([view["row"] for view in views])
