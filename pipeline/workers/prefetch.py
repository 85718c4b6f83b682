"""Read-ahead and write-behind: a worker reads its next input and writes its last output while it computes.

Both run in threads of their own, in order, and only a few steps away from the computation. The results are those of
one step after the other, and memory is bounded. Threads help because reading, checksums, compression, writing and a
forward pass all release Python's interpreter lock.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def ahead(read: Callable[[Key], Value], keys: Iterable[Key], *, depth: int = 1, threads: int = 1) -> Iterator[Value]:
    """Yield `read(key)` for each key, in order, and read up to `depth` keys ahead of the caller.

    Args:
        read: runs in another thread. Its exception is raised where its value would have been yielded.
        keys: what to read.
        depth: how many values may be held while the caller uses an earlier value.
        threads: how many values are read at the same time; `read` must be thread-safe where it is more than 1.
    """
    pool, pending = ThreadPoolExecutor(threads), deque[Future[Value]]()
    try:
        for key in keys:
            pending.append(pool.submit(read, key))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def behind(*, depth: int = 1) -> Iterator[Callable[..., None]]:
    """Yield a function that runs its arguments later, as a step in another thread. Steps keep their order.

    The block ends when all steps are done. A step's exception is raised by a later call, or at the end of the block.

    Args:
        depth: how many steps may be waiting. A call beyond that waits for the oldest step.
    """
    pool, pending = ThreadPoolExecutor(1), deque[Future[Any]]()

    def later(step: Callable[..., Any], *arguments: Any) -> None:
        pending.append(pool.submit(step, *arguments))
        while len(pending) > depth:
            pending.popleft().result()

    try:
        yield later
        while pending:
            pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
