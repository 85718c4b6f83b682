"""How fast shards are written, beside a plain file of the same bytes, and what that holds in memory.

    python -m tests.benchmarks.writers [--megabytes 64 512] [--compressions none zstd] [--turns 5] [--folder .]

Writing a shard checks every number, takes CRC32C of every chunk and XXH3 of it all, compresses where the array says
so, appends the index, flushes to the disk, and renames. The plain file is written in the same pieces, and flushed. The
two take turns; printed are medians, and the ratio in each turn: the plain file's seconds over ours; rates are those of
the bytes written. Memory: what a process of its own holds at most while it writes one shard, beyond what it held
before.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from storage_schemas.format.shard_format import ArraySpec, encode_chunk
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import open_shard

ENTRY = (14, 14, 1024)
VIEWS = 64
"""Different ones, over and over."""


def spec_of(megabytes: int, compression: Any) -> ArraySpec:
    """Return an array of one shard of so many MiB before compression."""
    rows = megabytes * 2**20 // (2 * int(np.prod(ENTRY)))
    shape = (rows, *ENTRY)
    return ArraySpec(path="a", shape=shape, dtype="float16", rows_per_shard=rows, compression=compression)


def views() -> np.ndarray:
    """Return views like features: of unit variance."""
    return np.random.default_rng(0).standard_normal((VIEWS, *ENTRY), dtype=np.float32).astype(np.float16)


def write_shard(folder: Path, spec: ArraySpec, entries: np.ndarray) -> float:
    """Write a shard as `extract` does; return what it took (seconds)."""
    began = perf_counter()
    with open_shard(Store(uri=str(folder / "cache")), spec, 0) as writer:
        for row in range(spec.rows_per_shard):
            writer.append(entries[row % VIEWS])
    assert writer.sink.xxh3
    return perf_counter() - began


def write_plain(folder: Path, spec: ArraySpec, chunks: list[bytes]) -> float:
    """Write the same chunks to a file and flush it; return what it took (seconds)."""
    began = perf_counter()
    with open(folder / "plain", "wb") as file:
        for row in range(spec.rows_per_shard):
            file.write(chunks[row % VIEWS])
        file.flush()
        os.fsync(file.fileno())
    return perf_counter() - began


def measure(folder: Path, spec: ArraySpec, turns: int) -> None:
    """Print both rates, and their ratio."""
    entries = views()
    chunks = [b"".join(encode_chunk(entry, spec)) for entry in entries]
    taken = []
    for _ in range(turns):
        taken.append((write_shard(folder, spec, entries), write_plain(folder, spec, chunks)))
        (folder / "plain").unlink()
        shutil.rmtree(folder / "cache")  # neither is written over another, which has the disk flush that one first
    size = sum(len(chunks[row % VIEWS]) for row in range(spec.rows_per_shard)) / 1e6
    ours, plain = (statistics.median(one) for one in zip(*taken, strict=True))
    ratios = sorted(theirs / mine for mine, theirs in taken)
    rates = f"shard {size / ours:5.0f} MB/s, plain file {size / plain:5.0f} MB/s"
    told = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(f"{size:6.1f} MB, compression {spec.compression}: {rates}, ratio {told}", flush=True)
    if spec.compression != "none":
        began = perf_counter()
        for entry in entries:
            encode_chunk(entry, spec)
        alone = (perf_counter() - began) * spec.rows_per_shard / VIEWS
        print(f"    compressing alone: {size / alone:5.0f} MB/s, the shard takes {ours / alone:.2f} of its time")


def highest_resident() -> int:
    """Return the most memory that this process has held since it was last reset (KiB)."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1])


def tell_memory(folder: Path, spec: ArraySpec) -> None:
    """Write one shard, and print what that held beyond what was there before (KiB)."""
    entries = views()
    write_shard(folder, spec_of(8, spec.compression), entries)
    Path("/proc/self/clear_refs").write_text("5")
    before = highest_resident()
    write_shard(folder, spec, entries)
    print(highest_resident() - before)


def main() -> None:
    """Print rates, ratios and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", nargs="+", type=int, default=[64, 512])
    parser.add_argument("--compressions", nargs="+", default=["none", "zstd"], choices=["none", "zstd"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--memory", action="store_true", help="used by this program itself")
    options = parser.parse_args()
    for size in options.megabytes:
        for compression in options.compressions:
            spec = spec_of(size, compression)
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                if options.memory:
                    tell_memory(Path(folder), spec)
                    continue
                measure(Path(folder), spec, options.turns)
            command = [sys.executable, "-m", "tests.benchmarks.writers", "--memory"]
            command += ["--megabytes", str(size), "--compressions", compression]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"    held at most {int(told) / 2**10:.1f} MiB more", flush=True)


if __name__ == "__main__":
    main()
