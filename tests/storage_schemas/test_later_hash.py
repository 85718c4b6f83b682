"""A hash taken in another thread is that of the bytes in their order, whatever becomes of their memory."""

import hashlib
import time
from itertools import pairwise

import numpy as np
import pytest

from storage_schemas import later_hash
from storage_schemas.later_hash import RING_BYTES, STEP_BYTES, WORTH_A_THREAD, LaterHash

BYTES = np.random.default_rng(0).integers(0, 256, 3 * RING_BYTES + 777, dtype=np.uint8).tobytes()
SIZES = {
    "less than a thread is woken for": [1, WORTH_A_THREAD - 1, 100] * 9,
    "a thread's": [WORTH_A_THREAD] * 150,
    "by turns": [WORTH_A_THREAD + 1, 5, 3 * WORTH_A_THREAD, 0] * 40,
    "not a part of the ring": [STEP_BYTES // 3 + 7] * 30,
    "the whole ring": [RING_BYTES, 1, RING_BYTES],
    "more than the ring": [100, 2 * RING_BYTES + 5, WORTH_A_THREAD],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("slow", [False, True])
def test_it_is_the_hash_of_all_bytes_in_order(sizes: list[int], slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if slow:  # the ring is full, time and again
        now = later_hash.later
        monkeypatch.setattr(later_hash, "later", lambda step: now(lambda: (time.sleep(0.002), step())))
    taken, ends = LaterHash(), np.cumsum([0, *sizes]).tolist()
    for start, stop in pairwise(ends):
        passing = bytearray(BYTES[start:stop])
        taken.update(memoryview(passing))
        passing[:] = bytes(len(passing))
    assert taken.hexdigest() == hashlib.sha256(BYTES[: ends[-1]]).hexdigest()


def test_it_can_be_asked_on_the_way_and_of_nothing() -> None:
    taken = LaterHash()
    assert taken.hexdigest() == hashlib.sha256().hexdigest()
    for stop in range(STEP_BYTES, 4 * STEP_BYTES, STEP_BYTES):
        taken.update(BYTES[stop - STEP_BYTES : stop])
        assert taken.hexdigest() == hashlib.sha256(BYTES[:stop]).hexdigest()
