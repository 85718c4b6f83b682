"""Drawing views: which view of which image goes to which set, split and row. Nothing is decoded here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.config import ViewsConfig
from pipeline.images.listing import SourceImage
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import ViewSetManifest
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.seeds import digest_of, pick, unit_interval
from storage_schemas.format.views import Partition, Split, ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnView:
    """A view to be cut."""

    image: SourceImage
    draw: int
    """Which of the image's views: 0 … draws − 1."""
    split: Split


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DrawBasis:
    """What one generation of views is drawn from."""

    images: Sequence[SourceImage]
    """Those that it brought, without copies."""
    config: ViewsConfig
    """What all images are drawn by from this generation on."""

    def holds(self, key: str, draw: int, view_set: ViewSet) -> bool:
        """Say whether an image that was there by then has this view."""
        return draw < self.config.draws and draw_set(key, draw, self.config) == view_set


def draw_views(images: Sequence[SourceImage], config: ViewsConfig) -> dict[ViewSet, list[DrawnView]]:
    """Assign every (image, draw) to a view set, and order each set.

    Partition, resolution and split are functions of (seed, image key, draw). Within a set the training views come
    first, each split shuffled by hash: neighbours in a shard are unrelated, and the order in which images come means
    nothing.

    Returns:
        Views by set, sets in order of name, without those that got no view.
    """
    drawn = draw_generations([DrawBasis(images=images, config=config)])
    return {view_set: views for view_set, [views] in drawn.items()}


def draw_generations(generations: Sequence[DrawBasis]) -> dict[ViewSet, list[list[DrawnView]]]:
    """Draw the views of every generation: by its settings, of all images so far, those that no earlier one holds.

    Returns:
        Views by set and generation, sets in order of name, without those that got no view.
    """
    sets: dict[ViewSet, list[list[DrawnView]]] = {}
    for number in range(len(generations)):
        for view_set, view in _added(generations[: number + 1]):
            sets.setdefault(view_set, [[] for _ in generations])[number].append(view)
    seed = generations[0].config.seed
    return {
        view_set: [sorted(views, key=lambda view: _rank(view, seed)) for views in sets[view_set]]
        for view_set in sorted(sets)
    }


def _added(generations: Sequence[DrawBasis]) -> Iterator[tuple[ViewSet, DrawnView]]:
    """Yield the views that the last of some generations adds, and the set of each."""
    config = generations[-1].config
    for number, generation in enumerate(generations):
        for image in generation.images:
            split = draw_split(image.key, config)
            for draw in range(config.draws):
                view_set = draw_set(image.key, draw, config)
                if not any(one.holds(image.key, draw, view_set) for one in generations[number:-1]):
                    yield view_set, DrawnView(image=image, draw=draw, split=split)


def draw_split(key: str, config: ViewsConfig) -> Split:
    """Return the split of an image: by hash of its key alone, so that no view of a held-out image is trained on."""
    return "heldout" if unit_interval((config.seed, key, "split")) < config.heldout else "train"


def draw_set(key: str, draw: int, config: ViewsConfig) -> ViewSet:
    """Return the view set of (image, draw): partition by share, then resolution by proportion.

    A resolution or a partition that a recipe gains takes its share of the pairs, and moves none between the others.
    """
    high_share = config.high_share if config.low else 1.0
    high = bool(config.high) and unit_interval((config.seed, key, draw, "partition")) < high_share
    partition: Partition = "high" if high else "low"
    resolution = pick(config.proportions(partition), (config.seed, key, draw, "resolution"))
    return ViewSet(partition=partition, resolution=resolution)


def set_manifest(view_set: ViewSet, counts: Iterable[int], config: ViewsConfig) -> ViewSetManifest:
    """Return the shape of a set of so many views in each generation: its canvas, and its shards.

    A shard holds about `tokens_per_shard` student tokens, in whole mosaics.
    """
    geometry = CanvasGeometry(resolution=view_set.resolution, patch=config.patch, margin=config.margin)
    mosaic = _windows_per_mosaic(geometry.span, config.canvas_tokens)
    mosaics = max(1, round(config.tokens_per_shard / geometry.span**2 / mosaic))
    grid = ShardGrid(counts=tuple(counts), rows_per_shard=mosaics * mosaic)
    return ViewSetManifest(grid=grid, geometry=geometry)


def _windows_per_mosaic(window_tokens: int, canvas_tokens: int) -> int:
    if window_tokens > canvas_tokens:
        return 1
    return MosaicLayout(canvas_tokens=canvas_tokens, window_tokens=window_tokens).capacity


def _rank(view: DrawnView, seed: int) -> tuple[bool, bytes]:
    return view.split == "heldout", digest_of((seed, view.image.key, view.draw, "order"))
