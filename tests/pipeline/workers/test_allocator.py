"""A process that runs teachers on a CPU keeps the memory that it frees, in every thread and under every executor."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping

import pytest

from pipeline.config import RunConfig
from pipeline.workers.allocator import allocator_environment
from pipeline.workers.open_pool import open_pool

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")

COUNT_FAULTS = """
import ctypes, resource, sys, threading
from pipeline.workers.allocator import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_freed_memory()
size = 160 * 2**20
counts = [faults(size) for _ in range(3)]
thread = threading.Thread(target=lambda: counts.extend(faults(size) for _ in range(3)))
thread.start()
thread.join()
print(*counts)
"""
FEW = 8
"""Page faults of the interpreter itself while a block is used. A block of 160 MiB takes 80 with huge pages, and 40,960
without."""


def faults_of(mode: str, environment: Mapping[str, str]) -> list[int]:
    """Return the page faults of a block that is used again and again, three times in each of two threads."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", COUNT_FAULTS, mode]
    done = subprocess.run(command, env=own | dict(environment), capture_output=True, text=True, check=True)
    return [int(count) for count in done.stdout.split()]


def test_a_freed_block_is_used_again_without_a_page_fault_in_every_thread() -> None:
    first, *others = faults_of("kept", {})
    assert first > FEW
    assert max(others) <= FEW


def test_the_environment_does_the_same_for_a_process_that_starts_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in allocator_environment():
        monkeypatch.delenv(name, raising=False)
    first, *others = faults_of("", allocator_environment())
    assert first > FEW
    assert max(others) <= FEW


def test_what_the_user_sets_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "65536")
    assert "MALLOC_MMAP_MAX_" not in allocator_environment()
    assert min(faults_of("kept", {"MALLOC_MMAP_MAX_": "65536", "MALLOC_MMAP_THRESHOLD_": "1048576"})) > FEW


class Environment:
    """A worker that tells its environment."""

    def tell(self, _: None) -> dict[str, str]:
        return dict(os.environ)


@pytest.mark.slow
@pytest.mark.parametrize("forwards", [True, False])
def test_workers_on_ray_that_run_teachers_start_with_the_environment(forwards: bool) -> None:
    pytest.importorskip("ray")
    config = RunConfig(executor="ray", workers=1)
    with open_pool(Environment, config, tasks=1, forwards=forwards) as pool:
        [(_, environment)] = pool.run(Environment.tell, [None])
    assert (allocator_environment().items() <= environment.items()) == forwards
