"""The threads of a process that read objects, and hash what is written."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any

AT_ONCE = 4
"""Reads at a time. A disk or a network answers several in little more than the time of one. So does memory: while one
thread reads or inflates, others check what they have read."""


def all_at_once(reads: Sequence[Callable[[], object]]) -> None:
    """Run reads, a few at a time, and wait for all of them.

    Raises:
        Exception: what the first read that failed raised, in the order of `reads`, after all of them have ended.
    """
    if len(reads) == 1:
        reads[0]()
        return
    futures = [later(read) for read in reads]
    wait(futures)
    for future in futures:
        future.result()


def later(step: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Run a step in one of the threads. It must not wait for another such step: all threads may be taken."""
    return _threads(os.getpid()).submit(step, *arguments)


@lru_cache(maxsize=1)
def _threads(_process: int) -> ThreadPoolExecutor:
    # a forked process does not have the threads of its parent
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="storage")
