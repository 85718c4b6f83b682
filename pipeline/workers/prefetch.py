"""Doing two things at once inside a worker: reading ahead of the forward, and writing behind it.

In threads of their own, in order, never more than a few steps apart: results are those of doing one thing after
another, and memory is bounded. Reading, checksums, compression and writing let go of the interpreter, as a forward
does."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def ahead(read: Callable[[Key], Value], keys: Iterable[Key], *, depth: int = 1, threads: int = 1) -> Iterator[Value]:
    """Yield `read(key)` for each key, in order, having begun to read up to `depth` keys ahead.

    Args:
        read: runs in a thread of its own. What it raises is raised in its value's place.
        keys: what to read.
        depth: values held while the caller is at work on an earlier one.
        threads: values read at a time; `read` must allow for it.
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
    """Give a function that does steps later, in order, in a thread of its own; the block ends when all are done.

    What a step raises is raised by a later call, or at the end of the block.

    Args:
        depth: steps that may wait. A caller who is further ahead waits too.
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
