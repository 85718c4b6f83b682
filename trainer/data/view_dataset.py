"""The views of one set as a plain map-style dataset, for a training loop of one's own."""

from collections.abc import Sequence
from typing import final

import torch
from torch.utils.data import Dataset

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.seeds import Key
from storage_schemas.format.views import Split, ViewSet
from trainer.data.batch import ViewBatch
from trainer.data.dataset import BatchRequest, CachedBatches, heldout_keys
from trainer.data.source import Source


@final
class ViewDataset(Dataset[ViewBatch]):
    """The views of one view set and split, each with the features of every teacher that has features of the set.

    An item is a `ViewBatch` of one view; `collate_views` joins items to a batch:

        views = ViewDataset(source, "low-256")
        loader = DataLoader(views, batch_size=64, shuffle=True, collate_fn=collate_views)

    A training view gets a new student window every time it is read. Like every random augmentation of PyTorch, the
    window comes from torch's generator: `torch.manual_seed` repeats it for the same number of workers. A held-out view
    always has the same window.

    The dataset may be sent to other processes: each opens the cache by itself. With `num_workers`, give the loader
    `multiprocessing_context="forkserver"`: file systems behind a network do not survive a fork.
    """

    def __init__(self, source: Source, view_set: str, split: Split = "train") -> None:
        """List the views; nothing is read yet.

        Args:
            source: the cache, as `open_source` returns it.
            view_set: name of one of its view sets, such as `low-256`.
            split: `train` or `heldout`.

        Raises:
            SettingError: the source has no such view set.
        """
        by_name = {found.name: found for found in source.sets}
        if view_set not in by_name:
            fix = f"choose one of {', '.join(by_name)}"
            raise SettingError("view set", [Problem(place=view_set, found="is not in this source", fix=fix)])
        self.view_set: ViewSet = by_name[view_set]
        self.split: Split = split
        self.rows = source.sets[self.view_set].rows[split]
        self.batches = CachedBatches(source=source)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ViewBatch:
        """Read one view. The batch axis of every tensor has length 1.

        Raises:
            IndexError: there are not so many views.
            CorruptionError: stored bytes are not those that were committed.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[ViewBatch]:
        """Read several views at once, as one batch in a list: PyTorch's loader calls this instead of `__getitem__`.

        Raises:
            IndexError: there are not so many views.
            CorruptionError: stored bytes are not those that were committed.
        """
        rows = self.rows[list(indices)]
        request = BatchRequest(
            view_set=self.view_set, split=self.split, rows=rows, window_keys=self._window_keys(rows.tolist())
        )
        return self.batches[(request,)]

    def _window_keys(self, rows: Sequence[int]) -> tuple[Key, ...]:
        if self.split == "heldout":
            return heldout_keys(0, self.view_set, rows)
        fresh = torch.randint(2**62, (len(rows),)).tolist()
        return tuple((number, "student", self.view_set.name, row) for number, row in zip(fresh, rows, strict=True))
