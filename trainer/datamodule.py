"""The Lightning data module: training batches as a stream that resumes, held-out batches in order."""

from typing import final

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from storage_schemas.errors import Problem, SettingError
from storage_schemas.views import Partition
from trainer.config import TrainRecipe
from trainer.dataset import CachedBatches, heldout_requests
from trainer.loader import Batches, TrainingStream, open_loader
from trainer.order import Deck, Order
from trainer.source import Source


@final
class CachedViews(LightningDataModule):
    """The views of a cache, as one run meets them."""

    def __init__(self, source: Source, recipe: TrainRecipe) -> None:
        super().__init__()
        self.source, self.recipe = source, recipe
        self.stream: TrainingStream

    def train_dataloader(self) -> TrainingStream:
        """Return this process's share of every step."""
        assert self.trainer is not None
        order, rank, world = make_order(self.source, self.recipe), self.trainer.global_rank, self.trainer.world_size
        dataset = CachedBatches(source=self.source)
        self.stream = TrainingStream(dataset, order, self.recipe.steps, self.recipe.running, rank, world)
        return self.stream

    def heldout_loader(self) -> DataLoader:
        """Return every held-out view once, in batches of one view set."""
        requests = heldout_requests(self.source, batch_sizes(self.recipe), self.recipe.seed)
        return open_loader(CachedBatches(source=self.source), [(one,) for one in requests], self.recipe.running)

    def transfer_batch_to_device(self, batch: Batches, device: torch.device, _dataloader_idx: int) -> Batches:
        """Move a step's batches to a device."""
        return [part.to(device) for part in batch]


def batch_sizes(recipe: TrainRecipe) -> dict[Partition, int]:
    """Return the views per step of each partition."""
    return {"low": recipe.data.batch_low, "high": recipe.data.batch_high}


def make_order(source: Source, recipe: TrainRecipe) -> Order:
    """Return the order of a run.

    Raises:
        SettingError: a view set without training views, which could fill no batch.
    """
    empty = [view_set.name for view_set, one in source.sets.items() if not len(one.rows["train"])]
    if empty:
        fix = "leave it out with data.proportions, or cut more views"
        problems = [Problem(place=name, found="has no training view", fix=fix) for name in empty]
        raise SettingError("view sets", problems)
    decks = {
        view_set: Deck(
            rows=one.rows["train"],
            rows_per_shard=one.rows_per_shard,
            proportion=float(recipe.data.proportions.get(view_set.name, len(one.rows["train"]))),
        )
        for view_set, one in source.sets.items()
    }
    partitions = {view_set.partition for view_set in decks}
    sizes = {partition: size for partition, size in batch_sizes(recipe).items() if partition in partitions}
    return Order(seed=recipe.seed, decks=decks, batches=sizes, window_shards=recipe.data.window_shards)
