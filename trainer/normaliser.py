"""Fitting a student's block normaliser on held-out views, and storing it beside the student."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, final

import safetensors.torch
import torch
from jaxtyping import Float64
from torch import Tensor

from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, Problem, SettingError
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import write_whole
from trainer.data.batch import unit_pixels
from trainer.data.set_source import open_set
from trainer.data.source import Source
from trainer.data.view_dataset import ViewDataset
from trainer.export import ExportedStudent
from trainer.run_folder import RunFolder
from trainer.student.blocks import BlockNormaliser, block_maps, blocks_of, observed_blocks


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockSums:
    """Sums over the tokens of some views, of every block. Sums of two parts are added."""

    tokens: int
    total: Float64[Tensor, "blocks channels"]
    """Σ x."""
    squares: Float64[Tensor, " blocks"]
    """Σ |x|²."""

    def __add__(self, other: "BlockSums") -> "BlockSums":
        return BlockSums(
            tokens=self.tokens + other.tokens, total=self.total + other.total, squares=self.squares + other.squares
        )


def normalise_student(student: ExportedStudent, cache: Cache, run: RunFolder, batch: int) -> int:
    """Fit the normaliser of all blocks on the held-out views that the student was scored on, and write it.

    Args:
        student: the student, in evaluation mode, on the device that it runs on.
        cache: the cache that it was trained on. Its views are read; features of teachers are not needed.
        run: folder of the student.
        batch: views per step.

    Returns:
        Number of views.

    Raises:
        IdentityError: the cache holds other views than those that the student was trained on.
        SettingError: the student has no row of blocks, there is no held-out view, or a block gives the same everywhere.
    """
    blocks_of(student.student)
    source = _heldout_views(cache, student.card["cache"])
    views = sum(len(set_source.rows["heldout"]) for set_source in source.sets.values())
    if not views:
        found, fix = "has no held-out views", "cut views with --views.heldout"
        raise SettingError("normaliser", [Problem(place=cache.store.uri, found=found, fix=fix)])
    sums = reduce(BlockSums.__add__, _observed(student, source, batch))
    normaliser = fit_normaliser(sums)
    if constant := [block for block, scale in enumerate(normaliser.scale.tolist()) if not scale > 0]:
        places = [Problem(place=f"block {block}", found="gives the same features everywhere") for block in constant]
        raise SettingError("normaliser", places)
    facts = {"weights_sha256": student.card["weights_sha256"], "views": views, "tokens": sums.tokens}
    tensors = {"mean": normaliser.mean, "scale": normaliser.scale}
    write_whole(run.blocks, safetensors.torch.save(tensors, {"stillhouse": json.dumps(facts)}))
    return views


def fit_normaliser(sums: BlockSums) -> BlockNormaliser:
    """Return the normaliser of the tokens that were summed; see `BlockNormaliser` for the equation."""
    mean, channels = sums.total / sums.tokens, sums.total.shape[1]
    variance = (sums.squares / sums.tokens - mean.square().sum(dim=1)).clamp(min=0) / channels
    return BlockNormaliser(mean=mean.float(), scale=variance.sqrt().float())


def observe_blocks(student: ExportedStudent, pixels: Tensor) -> BlockSums:
    """Run the student on images (RGB in [0, 1]), and return the sums of every block's tokens, on the CPU."""
    blocks = [range(block, block + 1) for block in range(len(blocks_of(student.student)))]
    with torch.no_grad(), observed_blocks(student.student, blocks) as outputs:
        student.student(pixels)
    maps = block_maps(student.student, pixels, outputs)
    features = torch.stack([maps[block].flatten(0, 2) for block in range(len(blocks))]).double()
    return BlockSums(
        tokens=features.shape[1], total=features.sum(dim=1).cpu(), squares=features.square().sum(dim=(1, 2)).cpu()
    )


def _heldout_views(cache: Cache, trained: Mapping[str, Any]) -> Source:
    """Open the views that a student was trained and scored on, without any teacher."""
    views = cache.views_manifest()
    if views is None or views.digest != trained["views"]:
        held = "no views" if views is None else f"the views {views.digest}"
        found = f"holds {held}, and the student was trained on {trained['views']}"
        problem = Problem(place=cache.store.uri, found=found, fix="give the cache that the student was trained on")
        raise IdentityError("cache", [problem])
    sets = [view_set for view_set in views.sets if view_set.name in trained["rows"]]
    opened: Mapping[ViewSet, Any] = {
        view_set: open_set(cache, views, view_set, {}, trained["rows"][view_set.name]) for view_set in sorted(sets)
    }
    return Source(cache=cache, sets=opened, teachers={}, identity={})


def _observed(student: ExportedStudent, source: Source, batch: int) -> Iterator[BlockSums]:
    device = student.student.mean.device
    for view_set in source.sets:
        views = ViewDataset(source, view_set.name, "heldout")
        for rows in _parts(range(len(views)), batch):
            [read] = views.__getitems__(rows)
            yield observe_blocks(student, unit_pixels(read.pixels).to(device))


def _parts(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))
