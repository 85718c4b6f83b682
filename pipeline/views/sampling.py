"""Drawing views: to which set, split and row each view of each image belongs. No image is read here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.config import ViewsConfig
from pipeline.images.listing import SourceImage
from pipeline.views.evaluation_views import evaluation_sets
from pipeline.views.order import DrawnView, in_order
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import ViewSetManifest
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.seeds import pick, unit_interval
from storage_schemas.format.views import Partition, Split, ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DrawBasis:
    """What one generation of views is drawn from."""

    images: Sequence[SourceImage]
    """Images that it added, without copies."""
    config: ViewsConfig
    """Settings that apply to all images from this generation on."""

    def holds(self, key: str, draw: int, view_set: ViewSet) -> bool:
        """Say whether this generation gives this view to an image that it or an earlier generation added."""
        return draw < self.config.draws and view_set in sets_of_draw(key, draw, self.config)


def draw_views(images: Sequence[SourceImage], config: ViewsConfig) -> dict[ViewSet, list[DrawnView]]:
    """Assign every (image, draw) to a view set, evaluation views to all view sets, and order each set.

    Partition, resolution and split are functions of (seed, image key, draw). Within a set the training views come
    first, and each split is shuffled by hash: neighbours in a shard are unrelated, and the order of the images does not
    matter; see `pipeline.views.order`.

    Returns:
        Views by set, sets in order of name; sets without views are left out.
    """
    drawn = draw_generations([DrawBasis(images=images, config=config)])
    return {view_set: views for view_set, [views] in drawn.items()}


def draw_generations(
    generations: Sequence[DrawBasis], rows_per_shard: Mapping[str, int] | None = None
) -> dict[ViewSet, list[list[DrawnView]]]:
    """Draw the views of every generation.

    A generation applies its settings to all images so far, and adds the views that no earlier generation holds.

    Args:
        generations: what each is drawn from.
        rows_per_shard: row slots in a shard by name of the set, where they are not those of the settings.

    Returns:
        Views by set and generation, sets in order of name; sets without views are left out.
    """
    sets: dict[ViewSet, list[list[DrawnView]]] = {}
    for number in range(len(generations)):
        for view_set, view in _added(generations[: number + 1]):
            sets.setdefault(view_set, [[] for _ in generations])[number].append(view)
    configs, ordered = [generation.config for generation in generations], dict[ViewSet, list[list[DrawnView]]]()
    for view_set in sorted(sets):
        chosen = (rows_per_shard or {}).get(view_set.name)
        rows = chosen or set_manifest(view_set, [1], configs[-1]).grid.rows_per_shard
        ordered[view_set] = [
            in_order(added, config, rows) for added, config in zip(sets[view_set], configs, strict=True)
        ]
    return ordered


def _added(generations: Sequence[DrawBasis]) -> Iterator[tuple[ViewSet, DrawnView]]:
    """Yield each view that the last of these generations adds, with its set."""
    config = generations[-1].config
    for number, generation in enumerate(generations):
        for image in generation.images:
            split = draw_split(image.key, config)
            for draw in range(config.draws):
                for view_set in sets_of_draw(image.key, draw, config):
                    if not any(earlier.holds(image.key, draw, view_set) for earlier in generations[number:-1]):
                        yield view_set, DrawnView(image=image, draw=draw, split=split)


def draw_split(key: str, config: ViewsConfig) -> Split:
    """Return the split of an image, by hash of its key alone: no view of a held-out image is trained on."""
    return "heldout" if unit_interval((config.seed, key, "split")) < config.heldout else "train"


def sets_of_draw(key: str, draw: int, config: ViewsConfig) -> list[ViewSet]:
    """Return the view sets in which (image, draw) is a view: the one that is drawn, or all of evaluation views."""
    return [draw_set(key, draw, config)] if config.placing == "drawn" else evaluation_sets(config)


def draw_set(key: str, draw: int, config: ViewsConfig) -> ViewSet:
    """Return the view set of (image, draw): the partition by its share, then the resolution by its proportion.

    A resolution or partition that is added to a recipe takes its share of the pairs, and moves none of the others.
    """
    high_share = config.high_share if config.low else 1.0
    high = bool(config.high) and unit_interval((config.seed, key, draw, "partition")) < high_share
    partition: Partition = "high" if high else "low"
    resolution = pick(config.proportions(partition), (config.seed, key, draw, "resolution"))
    return ViewSet(partition=partition, resolution=resolution)


def set_manifest(view_set: ViewSet, counts: Iterable[int], config: ViewsConfig) -> ViewSetManifest:
    """Return the canvas and the shards of a view set.

    A shard holds about `tokens_per_shard` student tokens, in whole mosaics.

    Args:
        view_set: the set.
        counts: how many views each generation has in it.
        config: the recipe's.
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
