"""Plain text for a terminal: aligned columns, and sizes in units."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return rows as lines of aligned columns.

    Args:
        rows: cells; every row has the same number.
        left: number of leading columns that are aligned left; the others hold numbers, and are aligned right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cell(cells, widths, left)).rstrip() for cells in rows]


def sized(count: int) -> str:
    """Return a number of bytes in decimal units, to four digits: `42.47 MB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.95:
            return f"{count} B" if unit == "B" else f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:,.4g} PB"


def _cell(cells: Sequence[str], widths: Sequence[int], left: int) -> list[str]:
    return [
        cell.ljust(width) if column < left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
