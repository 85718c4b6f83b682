"""The Lightning data module: training batches as a stream that resumes, held-out batches in order."""

from typing import final

import torch
from lightning import LightningDataModule

from trainer.data.dataset import CachedBatches, heldout_requests
from trainer.data.loader import ALONE, Batches, Loader, Share, TrainingStream, open_loader
from trainer.data.schedule import batch_sizes, make_course
from trainer.data.source import Source
from trainer.settings.config import TrainRecipe


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
        self.stream = TrainingStream(
            CachedBatches(source=self.source),
            make_course(self.source, self.recipe),
            self.recipe,
            Share(rank=self.trainer.global_rank, world=self.trainer.world_size),
        )
        return self.stream

    def heldout_loader(self, share: Share = ALONE) -> Loader:
        """Return a process's share of the held-out views, in batches of one view set; together, each view once."""
        every = heldout_requests(self.source, batch_sizes(self.recipe), self.recipe.seed)
        requests = every[share.rank :: share.world]
        return open_loader(CachedBatches(source=self.source), [(one,) for one in requests], self.recipe.running)

    def transfer_batch_to_device(self, batch: Batches, device: torch.device, _dataloader_idx: int) -> Batches:
        """Move a step's batches to a device."""
        return [part.to(device) for part in batch]
