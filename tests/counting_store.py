"""A store that counts requests: `counted:///folder` reads and lists that folder as a store behind a network would."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem


@final
@dataclass(frozen=True, kw_only=True)
class Requests:
    """The requests that a store was sent, in order."""

    reads: list[str] = field(default_factory=list)
    """Objects of which bytes were read, or were to be read."""
    checks: list[str] = field(default_factory=list)
    """Objects whose existence or size was asked for."""
    listings: list[str] = field(default_factory=list)
    """Folders that were listed."""

    @property
    def total(self) -> int:
        """Requests of all kinds."""
        return len(self.reads) + len(self.checks) + len(self.listings)

    @property
    def repeated(self) -> dict[str, int]:
        """Requests that were sent more than once, each with how often."""
        kinds = {"read": self.reads, "check": self.checks, "list": self.listings}
        sent = Counter(f"{kind} {name}" for kind, names in kinds.items() for name in names)
        return {request: count for request, count in sent.items() if count > 1}

    def __str__(self) -> str:
        return (
            f"{self.total} requests: {len(self.reads)} reads, {len(self.listings)} listings, {len(self.checks)} checks"
        )


@final
class CountedFiles(AbstractFileSystem):
    """The files of this machine, read and listed through requests that are counted."""

    protocol = "counted"
    cachable = False
    sent: Requests | None = None
    """Where requests are noted; None outside `counted`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._files = LocalFileSystem()

    def cat_ranges(
        self, paths: Sequence[str], starts: Sequence[int | None], ends: Sequence[int | None], **_: Any
    ) -> list[Any]:
        """Read a range of each file: one request for each."""
        self._note("reads", *paths)
        return [self._read(*span) for span in zip(paths, starts, ends, strict=True)]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return a file's size and kind: one request."""
        self._note("checks", path)
        return self._files.info(path)

    def exists(self, path: str, **_: Any) -> bool:
        """Say whether a file exists: one request."""
        self._note("checks", path)
        return self._files.exists(path)

    def find(self, path: str, *arguments: Any, **settings: Any) -> Any:
        """List all files below a folder: one request."""
        self._note("listings", path)
        return self._files.find(path, *arguments, **settings)

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        """List a folder: one request."""
        self._note("listings", path)
        return self._files.ls(path, detail=detail)

    def _read(self, path: str, start: int | None, end: int | None) -> bytes | OSError:
        try:
            return self._files.cat_file(path, start, end)
        except OSError as error:
            return error

    def _note(self, kind: str, *paths: str) -> None:
        if CountedFiles.sent is not None:
            getattr(CountedFiles.sent, kind).extend(paths)


fsspec.register_implementation("counted", CountedFiles, clobber=True)


@contextmanager
def counted() -> Iterator[Requests]:
    """Count the requests of this process until the block ends."""
    CountedFiles.sent = requests = Requests()
    try:
        yield requests
    finally:
        CountedFiles.sent = None
