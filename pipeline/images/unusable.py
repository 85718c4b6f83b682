"""The error that says why an image cannot be cut."""

from typing import final


@final
class UnusableImageError(Exception):
    """This image cannot be cut. Its views are recorded as rejected, and the work goes on.

    Both texts are stored in the cache's `rejected` table: another wording changes the bytes of caches.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
