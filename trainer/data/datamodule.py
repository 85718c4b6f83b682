"""The Lightning data module: training batches as a stream that resumes, held-out batches in order."""

from collections.abc import Iterator
from itertools import islice
from typing import final

import torch
from lightning import LightningDataModule

from trainer.data.dataset import BatchRequest, CachedBatches, heldout_requests
from trainer.data.loader import WHOLE, Batches, BatchLoader, Share, TrainingStream, open_loader
from trainer.data.schedule import batch_sizes, make_schedule
from trainer.data.source import Source
from trainer.settings.config import TrainRecipe


@final
class CachedViews(LightningDataModule):
    """The views of a cache, in the order in which one run uses them."""

    def __init__(self, source: Source, recipe: TrainRecipe) -> None:
        """Schedule the run; nothing is read yet.

        Raises:
            SettingError: a view set that cannot fill a batch, or a margin that does not agree with `data.shifts`.
        """
        super().__init__()
        self.source, self.recipe = source, recipe
        self.schedule = make_schedule(source, recipe)
        self.stream: TrainingStream

    def train_dataloader(self) -> TrainingStream:
        """Return this process's share of every step."""
        assert self.trainer is not None
        share = Share(rank=self.trainer.global_rank, world=self.trainer.world_size)
        self.stream = TrainingStream(CachedBatches(source=self.source), self.schedule, self.recipe, share)
        return self.stream

    def heldout_requests(self, share: Share = WHOLE) -> Iterator[BatchRequest]:
        """Yield what `heldout_loader` reads for each of its batches, in the same order."""
        requests = heldout_requests(self.source, batch_sizes(self.recipe), self.recipe.seed)
        return islice(requests, share.rank, None, share.world)

    def heldout_loader(self, share: Share = WHOLE) -> BatchLoader:
        """Return a process's share of the held-out views, in batches of one view set.

        All shares together hold each view once.
        """
        mine = ((request,) for request in self.heldout_requests(share))
        return open_loader(CachedBatches(source=self.source), mine, self.recipe.running)

    def transfer_batch_to_device(self, batch: Batches, device: torch.device, _dataloader_idx: int) -> Batches:
        """Move a step's batches to a device."""
        return [part.to(device) for part in batch]
