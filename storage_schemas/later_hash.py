"""SHA-256 of an object's bytes, taken in another thread while they are written."""

import hashlib
from concurrent.futures import Future
from typing import final

from storage_schemas.in_flight import later

WORTH_A_THREAD = 2**16
"""Fewer bytes than these are hashed sooner than a thread is woken for them."""
RING_BYTES = 4 * 2**20
"""What may wait to be hashed."""
STEP_BYTES = 2**20
"""What is hashed before there is room again."""


@final
class LaterHash:
    """The hash of bytes that come one after another.

    Bytes are copied, into a ring that lasts as long as the hash: memory that one thread takes and another gives back,
    chunk after chunk, costs as much as hashing it, for the system takes it away and clears it each time."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._ring: memoryview | None = None
        self._put = self._taken = 0
        """Bytes that were ever put into the ring, and of those, how many were hashed; each thread adds to one."""
        self._taking: Future | None = None

    def update(self, body: bytes | memoryview) -> None:
        """Take in bytes. They may be changed afterwards."""
        if len(body) < WORTH_A_THREAD:
            self._settle()
            self._hash.update(body)
            return
        rest = memoryview(body)
        while rest.nbytes:
            rest = rest[self._put_some(rest) :]
            if self._taking is None or self._taking.done():
                self._taking = later(self._take)

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far (hexadecimal)."""
        self._settle()
        return self._hash.hexdigest()

    def _put_some(self, rest: memoryview) -> int:
        if self._ring is None:
            self._ring = memoryview(bytearray(RING_BYTES))
        if self._put - self._taken == RING_BYTES:
            self._settle()
        start = self._put % RING_BYTES
        length = min(rest.nbytes, RING_BYTES - start, RING_BYTES - (self._put - self._taken))
        self._ring[start : start + length] = rest[:length]
        self._put += length
        return length

    def _take(self) -> None:
        while self._taken < self._put:
            assert self._ring is not None
            start = self._taken % RING_BYTES
            length = min(STEP_BYTES, RING_BYTES - start, self._put - self._taken)
            self._hash.update(self._ring[start : start + length])
            self._taken += length

    def _settle(self) -> None:
        if self._taking is not None:
            self._taking.result()
            self._taking = None
        self._take()  # what came as the thread was about to end
