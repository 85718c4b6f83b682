"""The loss history: one CSV file, which a resumed run continues."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from lightning.pytorch.loggers.logger import Logger

from storage_schemas.objects.publish import write_whole
from trainer.run.history_rows import read_history


@final
class HistoryLogger(Logger):
    """Appends a row per logged step. When a run resumes, later rows are dropped: they will be logged again."""

    def __init__(self, path: Path, columns: Sequence[str], start: int) -> None:
        """Open the history.

        Args:
            path: the CSV file.
            columns: names of all values that may be logged, without `step`.
            start: the step after which the run resumes; 0 starts a new file.
        """
        super().__init__()
        self._path, self._columns = path, ["step", *columns]
        rows = [row for row in read_history(path) if int(row["step"]) <= start] if start else []
        # a run may measure tasks that it does not measure any more
        self._columns += [name for name in (rows[0] if rows else ()) if name not in self._columns]
        write_whole(path, _lines([dict(zip(self._columns, self._columns, strict=True)), *rows], self._columns))

    @property
    def name(self) -> str:
        """Name of the logger for Lightning."""
        return "history"

    @property
    def version(self) -> str:
        """Empty: a run has one history."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: hyperparameters are in `run.json`."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        with self._path.open("ab") as file:
            file.write(_lines([{"step": step, **metrics}], self._columns))


def _lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    unknown = {name for row in rows for name in row} - set(columns)
    if unknown:
        raise KeyError(f"no column for {', '.join(sorted(unknown))}")
    return "".join(",".join(str(row.get(name, "")) for name in columns) + "\n" for row in rows).encode()
