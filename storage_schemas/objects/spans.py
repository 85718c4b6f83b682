"""Ranges of bytes inside an object."""

from collections.abc import Iterable

Span = tuple[str, int | None, int | None]
"""An object's path, and where the bytes wanted start and stop; None for all."""


def coalesce(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge byte ranges that touch or overlap, in order of their starts: neighbouring chunks then cost one read."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
