"""A bound on the memory of threads that decode images at the same time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


@final
class DecodingRoom:
    """Room for so many pixels. A thread waits until there is room for its image."""

    def __init__(self, pixels: int) -> None:
        self._free, self._most = pixels, pixels
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Take room for an image while the block runs. A larger image than there is room for waits for all of it."""
        pixels = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._free)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()
