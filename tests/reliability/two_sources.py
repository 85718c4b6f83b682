"""A dataset for these tests: batches of several caches, each opened in the process that reads it."""

from collections.abc import Sequence
from typing import final

from torch.utils.data import Dataset

from trainer.data.batch import ViewBatch
from trainer.data.dataset import BatchRequest, CachedBatches


@final
class TwoSources(Dataset):
    """Answers each request from each of its sources in turn."""

    def __init__(self, sources: Sequence[CachedBatches]) -> None:
        self.sources = sources

    def __getitem__(self, requests: tuple[BatchRequest, ...]) -> list[list[ViewBatch]]:
        return [source[requests] for source in self.sources]
