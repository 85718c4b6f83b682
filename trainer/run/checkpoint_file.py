"""Writing a checkpoint: straight into the run's folder, whole and durable."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from typing_extensions import override

from storage_schemas.format.errors import StorageError
from storage_schemas.objects.publish import open_whole


@final
class CheckpointFile(CheckpointIO):
    """How Lightning writes and reads checkpoints.

    Lightning's own way keeps the bytes in memory, and writes them to the folder for temporary files first.
    """

    @override
    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint, which replaces one that is there.

        Raises:
            StorageError: the disk is full, cannot be written to, or fails. What was there stays.
        """
        with open_whole(path) as target:
            file = _Writer(target.writelines)
            torch.save(checkpoint, file)  # type: ignore[arg-type]  # it needs no more than these two methods
            if file.error is not None:
                raise file.error

    @override
    def load_checkpoint(self, *arguments: Any, **settings: Any) -> dict[str, Any]:
        """Read a checkpoint as Lightning does."""
        return TorchCheckpointIO().load_checkpoint(*arguments, **settings)

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


@final
class _Writer:
    """A file for torch, whose writer in C++ does not survive an exception: it is kept, and later bytes are dropped."""

    def __init__(self, write: Callable[[list[memoryview]], object]) -> None:
        self._write = write
        self.error: StorageError | None = None

    def write(self, piece: memoryview) -> int:
        if self.error is None:
            try:
                self._write([piece])
            except StorageError as error:
                self.error = error
        return len(piece)

    def flush(self) -> None:
        """Do nothing: every write is handed on at once."""
