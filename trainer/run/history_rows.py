"""Reading the loss history, without what writing it needs."""

import csv
from pathlib import Path


def read_history(path: Path) -> list[dict[str, str]]:
    """Return the rows of a history, each by column. A value that was not logged is an empty text."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        # a killed process may leave a part of a row at the end
        return [row for row in csv.DictReader(file) if None not in row.values()]
