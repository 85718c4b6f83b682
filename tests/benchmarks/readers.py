"""How fast views are read at random, beside other readers of the same bytes and other stores of the same views.

    pip install --constraint constraints.txt '.[benchmarks,dev]'
    python -m tests.benchmarks.readers [--shapes features256 …] [--cores 1] [--turns 7] [--cold]

The stores lie on a local disk and, read once from there, in the page cache. `--cold`: in none, as most of a store that
is larger than memory; each pass then has a process of its own, reads a batch first, for indices and the like, then
three that are timed, and what the disk gave for each view is printed too. All readers share the cores given, one by
default. Each reads as its documentation recommends for the access: views in random order one by one, batches of 32
random views, or, where it has a stream, a shuffled pass in an order of its own. All that is read is compared with the
source before anything is timed. The sides take turns; printed are medians, and ratios: views per second of this reader
over the other's in the same turn, by the clock and by the processor's time. A reader with only a stream is held against
this reader's views one by one. Memory: what a process of its own holds at most while it reads everything once, beyond
what it held when the store was open, mapped files told apart.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import final

import google_crc32c
import numpy as np

from tests.benchmarks.reader_stores import READERS, SHAPES, Reader, batches, entries_of, shuffled_rows, write_stores

BATCH = 32
COLD_BATCHES = 3
"""Timed with an empty page cache: so few that hardly one finds what was read ahead for another."""
OURS = next(iter(READERS))
Pass = Callable[[Reader, list[int]], int]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What reading a view took."""

    clock: float
    """Seconds."""
    processor: float
    """Seconds."""
    disk: float
    """Bytes that the disk gave."""


def one_by_one(reader: Reader, rows: list[int]) -> int:
    """Read views one by one; return how many."""
    assert reader.one is not None
    for row in rows:
        reader.one(row)
    return len(rows)


def in_batches(reader: Reader, rows: list[int]) -> int:
    """Read views in batches."""
    assert reader.batch is not None
    return sum(len(reader.batch(some)) for some in batches(rows, BATCH))


def in_a_stream(reader: Reader, _rows: list[int]) -> int:
    """Read every view once, in the reader's own order."""
    assert reader.stream is not None
    return sum(1 for _ in reader.stream())


PASSES: dict[str, Pass] = {"one by one": one_by_one, f"batches of {BATCH}": in_batches, "stream": in_a_stream}


def passes_of(reader: Reader) -> dict[str, Pass]:
    """Return the ways in which a reader reads."""
    able = (reader.one, reader.batch, reader.stream)
    return {name: one for (name, one), way in zip(PASSES.items(), able, strict=True) if way is not None}


def require_right(reader: Reader, entries: np.ndarray) -> None:
    """Read every view in every way, and compare."""
    for row in shuffled_rows(len(entries), 1) if reader.one else []:
        np.testing.assert_array_equal(reader.one(row), entries[row])
    for some in batches(shuffled_rows(len(entries), 2), BATCH) if reader.batch else []:
        np.testing.assert_array_equal(reader.batch(some), entries[some])
    if reader.stream:
        assert sorted(map(np.ndarray.tobytes, reader.stream())) == sorted(map(np.ndarray.tobytes, entries))


def forget(folder: Path) -> None:
    """Empty the page cache of all files. None of them may be mapped."""
    os.sync()
    for path in (one for one in folder.rglob("*") if one.is_file()):
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bring_in(folder: Path) -> None:
    """Bring all files into the page cache as a disk gives them, not as they were written."""
    forget(folder)
    for path in (one for one in folder.rglob("*") if one.is_file()):
        with open(path, "rb", buffering=0) as file:
            while file.read(2**20):
                pass


def timed(reader: Reader, one_pass: Pass, rows: list[int]) -> Cost:
    """Return what a view takes."""
    began, worked, read = perf_counter(), process_time(), read_from_disk()
    views = one_pass(reader, rows)
    return Cost(
        clock=(perf_counter() - began) / views,
        processor=(process_time() - worked) / views,
        disk=(read_from_disk() - read) / views,
    )


def timed_cold(shape: str, folder: Path, name: str, how: str, turn: int) -> Cost:
    """Return what a view takes in a process of its own when the page cache holds none."""
    forget(folder)
    return Cost(**json.loads(_run("--shapes", shape, "--pass", name, how, str(turn), str(folder))))


def tell_cold(shape: str, name: str, how: str, turn: int, folder: Path) -> None:
    """Print what a view takes, as JSON."""
    reader, rows = READERS[name](shape, folder), shuffled_rows(SHAPES[shape][0], 3 + turn)
    if how != "stream":
        PASSES[how](reader, rows[:BATCH])
    print(json.dumps(asdict(timed(reader, PASSES[how], rows[BATCH : COLD_BATCHES * BATCH + BATCH]))))


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.benchmarks.readers", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def read_from_disk() -> int:
    """Return the bytes that the disk has given to this process so far, read ahead or asked for."""
    [told] = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes")]
    return int(told.split()[1])


def measure(shape: str, folder: Path, turns: int, *, cold: bool) -> None:
    """Print every reader's rate and ratio."""
    entries = entries_of(shape)
    opened = {name: build(shape, folder) for name, build in READERS.items()}
    for reader in opened.values():
        require_right(reader, entries)
    sides = [(name, how) for name, reader in opened.items() for how in passes_of(reader)]
    taken: dict[tuple[str, str], list[Cost]] = {side: [] for side in sides}
    if cold:
        del reader
        opened.clear()
        gc.collect()  # what is mapped stays in the page cache
    for turn in range(turns):
        rows = shuffled_rows(len(entries), 3 + turn)
        for name, how in sides:
            taken[name, how].append(
                timed_cold(shape, folder, name, how, turn) if cold else timed(opened[name], PASSES[how], rows)
            )
    size, kind = entries[0].nbytes, f"{entries.dtype} {entries.shape[1:]}"
    print(f"\n{shape}: {len(entries)} views of {kind}, {size / 1e6:.2f} MB each, {turns} turns")
    for (name, how), found in taken.items():
        ours = taken[OURS, how if how != "stream" else "one by one"]
        clock, processor = (
            statistics.median(getattr(other, of) / getattr(mine, of) for mine, other in zip(ours, found, strict=True))
            for of in ("clock", "processor")
        )
        seconds, disk = (statistics.median(getattr(one, of) for one in found) for of in ("clock", "disk"))
        rate = f"{1 / seconds:7.0f} views/s {size / seconds / 1e9:6.2f} GB/s, {disk / 1e6:5.2f} MB of the disk a view"
        print(f"  {how:14} {name:20} {rate}  ratio {clock:6.2f}, of the processor {processor:6.2f}", flush=True)
    seconds = checksum_seconds(entries)
    print(f"  CRC32C of one view: {1e6 * seconds:.0f} µs, {size / seconds / 1e9:.1f} GB/s")


def checksum_seconds(entries: np.ndarray) -> float:
    """Return what CRC32C of one view takes where it is in the processor's cache."""
    body, times = entries[0].reshape(-1).view(np.uint8), []
    for _ in range(200):
        began = perf_counter()
        google_crc32c.value(body)
        times.append(perf_counter() - began)
    return statistics.median(times)


def print_memory(shape: str, folder: Path) -> None:
    """Print what each reader holds at most."""
    for name in READERS:
        own, mapped = (int(one) / 2**10 for one in _run("--shapes", shape, "--memory", name, str(folder)).split())
        print(f"  memory of {name:20} {own:6.1f} MiB, and {mapped:6.1f} MiB of mapped files", flush=True)


def resident() -> dict[str, int]:
    """Return this process's resident memory, by kind (KiB)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "Rss" in name}


def tell_memory(shape: str, name: str, folder: Path) -> None:
    """Read everything once; print the most that is held: memory of the process's own, and of mapped files (KiB)."""
    reader = READERS[name](shape, folder)
    before, most = resident(), {"RssAnon": 0, "RssFile": 0}
    views = map(reader.one, shuffled_rows(SHAPES[shape][0], 0)) if reader.one else reader.stream()  # type: ignore[misc]
    for _ in views:
        now = resident()
        most = {kind: max(size, now[kind] - before[kind]) for kind, size in most.items()}
    print(*most.values())


def main() -> None:
    """Print rates, ratios and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES)[:3], choices=list(SHAPES))
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--cold", action="store_true", help="read from the disk each time")
    parser.add_argument("--memory", nargs=2, metavar=("READER", "FOLDER"), help="used by this program itself")
    one_pass = ("READER", "HOW", "TURN", "FOLDER")
    parser.add_argument("--pass", nargs=4, dest="one_pass", metavar=one_pass, help="likewise")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.memory:
        tell_memory(options.shapes[0], options.memory[0], Path(options.memory[1]))
        return
    if options.one_pass:
        name, how, turn, place = options.one_pass
        tell_cold(options.shapes[0], name, how, int(turn), Path(place))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # the processes above inherit them
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            write_stores(shape, Path(folder))
            bring_in(Path(folder))
            measure(shape, Path(folder), options.turns, cold=options.cold)
            print_memory(shape, Path(folder))


if __name__ == "__main__":
    main()
