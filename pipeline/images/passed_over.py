"""What is passed over while images are listed: each kind with its count, so that nothing is lost without a word."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

from storage_schemas.format.errors import first_few

OTHERS = "other files"
UNDECODED = "images of formats that are not decoded"
COMPRESSED = "compressed archives"
HIDDEN_FILES = "hidden files"
HIDDEN_FOLDERS = "hidden folders"
SPECIAL = "pipes, sockets and devices"
LOOPS = "links that lead back to a folder above them"
CAPTIONS = "tables of captions beside a tar or a folder"
NOT_CHOSEN = "members that --views.members leaves out"
NOT_DOWNLOADED = "rows without a download"
COMMENTS = "comments"
EXAMPLES = 5
"""Endings or names that a line names for each kind."""


@final
@dataclass(slots=True, eq=False)
class PassedOver:
    """Counts by kind, and within a kind by ending or name."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, detail: str = "") -> None:
        """Count one more."""
        self.counts[kind, detail] += 1

    def add_all(self, others: Iterable["PassedOver"]) -> None:
        """Add the counts of others."""
        for other in others:
            self.counts.update(other.counts)

    def by_kind(self) -> dict[str, int]:
        """Return the count of each kind, in order of name."""
        counts: Counter[str] = Counter()
        for (kind, _), count in self.counts.items():
            counts[kind] += count
        return dict(sorted(counts.items()))

    def __str__(self) -> str:
        """Return all kinds with their counts, the most frequent endings of each in brackets; empty for none."""
        return "; ".join(map(self._kind, dict.fromkeys(kind for kind, _ in self.counts)))

    def _kind(self, kind: str) -> str:
        details = Counter({detail: count for (of, detail), count in self.counts.items() if of == kind})
        named = [f"{detail} {count}" for detail, count in details.most_common() if detail]
        examples = f" ({', '.join(first_few(named, EXAMPLES))})" if named else ""
        return f"{details.total()} {kind}{examples}"
