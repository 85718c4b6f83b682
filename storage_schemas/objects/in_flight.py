"""Reading, and hashing what is written, in threads that a process keeps."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any

AT_ONCE = 4
"""Reads in flight. A disk or a network answers several in little more than the time of one; so does memory, as reading,
and inflating what is compressed, leave other threads free to check what they have."""


def all_at_once(reads: Sequence[Callable[[], object]]) -> None:
    """Do some reads, a few at a time.

    Raises:
        Exception: what the first read that failed raised, in the order of `reads`, after all of them have ended.
    """
    if len(reads) == 1:
        reads[0]()
        return
    under_way = [later(read) for read in reads]
    wait(under_way)
    for one in under_way:
        one.result()


def later(step: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Do a step in another thread. It must not itself wait for one that is done so."""
    return _threads(os.getpid()).submit(step, *arguments)


@lru_cache(maxsize=1)
def _threads(_process: int) -> ThreadPoolExecutor:
    # a forked process has none of its parent's threads
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="storage")
