"""The loss history as one CSV file that goes on where a run was cut off."""

import csv
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from lightning.pytorch.loggers.logger import Logger

from storage_schemas.objects.publish import write_whole


@final
class HistoryLogger(Logger):
    """Appends a row per logged step. Rows beyond the step that a run goes on from are dropped: they will come again."""

    def __init__(self, path: Path, columns: Sequence[str], start: int) -> None:
        """Open the history.

        Args:
            path: the CSV file.
            columns: names of all values that may be logged, without `step`.
            start: steps that the run has behind it; 0 starts the file anew.
        """
        super().__init__()
        self._path, self._columns = path, ["step", *columns]
        rows = [row for row in read_history(path) if int(row["step"]) <= start] if start else []
        write_whole(path, _lines([dict(zip(self._columns, self._columns, strict=True)), *rows], self._columns))

    @property
    def name(self) -> str:
        """What Lightning calls it."""
        return "history"

    @property
    def version(self) -> str:
        """A run has one history."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Hyperparameters are in `run.json`."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        with self._path.open("ab") as file:
            file.write(_lines([{"step": step, **metrics}], self._columns))


def read_history(path: Path) -> list[dict[str, str]]:
    """Return the rows of a history by column; a value that was not logged at a step is empty."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        # a killed run may leave half a row at the end
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    odd = {name for row in rows for name in row} - set(columns)
    if odd:
        raise KeyError(f"no column for {', '.join(sorted(odd))}")
    return "".join(",".join(str(row.get(name, "")) for name in columns) + "\n" for row in rows).encode()
