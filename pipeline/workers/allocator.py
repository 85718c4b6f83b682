"""The memory allocator of processes that run teachers on a CPU.

A forward frees and allocates the same large blocks after every operation. glibc gives blocks above 32 MiB, and the free
end of its heap, back to the system at once; the system clears each page again when it is next used. That takes as long
as the forward itself. So such a process keeps what it frees; see mallopt(3). It holds as much as its largest forward
needed, and the free end of its heap goes back once that is larger than 2 GiB.

The settings have an effect on glibc alone. Where the environment sets one of them, it stays as the user wants it.
"""

import ctypes
import os
import platform
from collections.abc import Mapping
from types import MappingProxyType

MOST_KEPT = 2**31 - 1
"""Free bytes at the end of the heap that are kept: the most that mallopt takes."""
SETTINGS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "MALLOC_MMAP_MAX_": (-4, 0),  # no block has pages of its own, which would go back when it is freed
        "MALLOC_TRIM_THRESHOLD_": (-1, MOST_KEPT),
        # the heap of a thread cannot hold a block of 64 MiB, so all threads use the main one
        "MALLOC_ARENA_MAX": (-8, 1),
    }
)
"""glibc's settings by environment variable: the number that mallopt knows each by, and its value."""


def allocator_environment() -> dict[str, str]:
    """Return the environment variables that make a new process keep the memory that it frees.

    A setting that this process's own environment has is left out: the user chose it.
    """
    return {name: str(value) for name, (_, value) in SETTINGS.items() if name not in os.environ}


def keep_freed_memory() -> None:
    """Make this process keep the memory that it frees. Threads that run already keep the heaps that they have.

    A worker of Ray runs its tasks in such a thread, so it needs `allocator_environment` when it starts.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for name, (number, value) in SETTINGS.items():
        if name not in os.environ:
            libc.mallopt(number, value)
