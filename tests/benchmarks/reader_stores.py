"""The same views in several stores, and each of their readers, for `tests.benchmarks.readers`."""

import itertools
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, final

import numpy as np

from storage_schemas.commits import ShardRecord
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, array_record, create_array, open_shard
from storage_schemas.sharded_array import ShardedArray

if missing := [name for name in ("litdata", "tensorstore", "webdataset", "zarr", "zarrs") if find_spec(name) is None]:
    sys.exit(f"{', '.join(missing)}: not installed; pip install --constraint constraints.txt '.[benchmarks,dev]'")

SHARD_BYTES = 64 * 2**20
SHUFFLED_AMONG = 256
"""Views that a stream of WebDataset is shuffled among."""
ARRAY = "teachers/t/low-256/spatial"
SHAPES: dict[str, tuple[int, tuple[int, ...], Any]] = {
    "features256": (1024, (14, 14, 1024), "float16"),
    "features432": (256, (27, 27, 1280), "float16"),
    "canvases256": (1024, (272, 272, 3), "uint8"),
    "large256": (4096, (14, 14, 1024), "float16"),
}
"""Number of views, shape and type of one, by name. The last is for `--cold`: large beside what is read ahead."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reader:
    """One store, open."""

    one: Callable[[int], np.ndarray] | None = None
    """Read a view; None where there is no access by index."""
    batch: Callable[[list[int]], np.ndarray] | None = None
    """Read a batch."""
    stream: Callable[[], Iterator[np.ndarray]] | None = None
    """Read every view once, shuffled, in an order of its own."""


def entries_of(shape: str) -> np.ndarray:
    """Return the views: noise, as features are to a compressor."""
    count, entry, dtype = SHAPES[shape]
    draws = np.random.default_rng(0).integers(0, 2**8, (count, *entry), dtype=np.uint8)
    return draws if dtype == "uint8" else draws.astype(np.float16) / 32 - 4


def write_stores(shape: str, folder: Path) -> None:
    """Write the views once in each store."""
    entries, spec = entries_of(shape), spec_of(shape)
    store = Store(uri=str(folder / "cache"))
    create_array(store, spec)
    records = [_write_shard(store, spec, shard, entries) for shard in range(-(-len(entries) // spec.rows_per_shard))]
    (folder / "records.json").write_text(json.dumps(records))
    np.save(folder / "plain.npy", entries)
    for shard, first in enumerate(range(0, len(entries), spec.rows_per_shard)):
        _write_tar(folder / f"{shard:05d}.tar", entries[first : first + spec.rows_per_shard], first)
    _write_litdata(folder / "litdata", entries)


def spec_of(shape: str) -> ArraySpec:
    """Return the array of our format."""
    count, entry, dtype = SHAPES[shape]
    rows = SHARD_BYTES // (int(np.prod(entry)) * np.dtype(dtype).itemsize)
    return ArraySpec(path=ARRAY, shape=(count, *entry), dtype=dtype, rows_per_shard=rows)


def _write_shard(store: Store, spec: ArraySpec, shard: int, entries: np.ndarray) -> dict[str, Any]:
    first = shard * spec.rows_per_shard
    with open_shard(store, spec, shard) as writer:
        for entry in entries[first : first + spec.rows_per_shard]:
            writer.append(entry)
    record = array_record(writer, ShardKey(unit="", shard=shard, identity=""))
    return {name: getattr(record, name) for name in record.__slots__} | {"chunks": record.chunks.hex()}


def _write_litdata(folder: Path, entries: np.ndarray) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes=SHARD_BYTES)
    for number, entry in enumerate(entries):
        writer.add_item(number, {"view": entry})
    writer.done()
    writer.merge()


def _write_tar(path: Path, entries: np.ndarray, first: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number, entry in enumerate(entries, first):
            body = BytesIO()
            np.save(body, entry)
            info = tarfile.TarInfo(f"{number:06d}.npy")
            info.size = body.tell()
            tar.addfile(info, BytesIO(body.getvalue()))


def open_ours(shape: str, folder: Path) -> Reader:
    """Open our own reader."""
    parts = json.loads((folder / "records.json").read_text())
    records = [ShardRecord(**part | {"chunks": bytes.fromhex(part["chunks"])}) for part in parts]
    store, spec = Store(uri=str(folder / "cache")), spec_of(shape)
    array = ShardedArray(store=store, spec=spec, records=dict(enumerate(records)))
    one, batch = _buffers(shape)
    return Reader(
        one=lambda row: array.read([row], one)[0],
        batch=lambda rows: array.read(rows, batch),
    )


def open_zarr(_shape: str, folder: Path, pipeline: str = "zarr.core.codec_pipeline.BatchedCodecPipeline") -> Reader:
    """Open zarr-python. Views are read one by one: its fancy indexing takes six times as long for each."""
    import zarr

    zarr.config.set({"codec_pipeline.path": pipeline, "async.concurrency": 1, "threading.max_workers": 1})
    array = zarr.open_array(folder / "cache/features.zarr" / ARRAY, mode="r")
    return Reader(one=lambda row: array[row], batch=lambda rows: np.stack([array[row] for row in rows]))


def open_zarrs(shape: str, folder: Path) -> Reader:
    """Open zarr-python with the codecs of zarrs."""
    import zarrs  # noqa: F401 (it registers itself)

    return open_zarr(shape, folder, "zarrs.ZarrsCodecPipeline")


def open_tensorstore(_shape: str, folder: Path) -> Reader:
    """Open tensorstore, with a cache that holds the shards' indices."""
    import tensorstore

    context = {"cache_pool": {"total_bytes_limit": 100_000_000}, "data_copy_concurrency": {"limit": 1}}
    place = {"driver": "file", "path": f"{folder}/cache/features.zarr/{ARRAY}/"}
    settings = {"driver": "zarr3", "kvstore": place, "recheck_cached_data": "open", "context": context}
    array = tensorstore.open(settings, read=True).result()
    return Reader(one=lambda row: array[row].read().result(), batch=lambda rows: array[rows].read().result())


def open_mapped(shape: str, folder: Path) -> Reader:
    """Open one memory-mapped array; nothing is checked."""
    mapped = np.load(folder / "plain.npy", mmap_mode="r")
    one, batch = _buffers(shape)

    def read(row: int) -> np.ndarray:
        one[0] = mapped[row]
        return one[0]

    def read_batch(rows: list[int]) -> np.ndarray:
        for place, row in zip(batch, rows, strict=True):
            place[...] = mapped[row]
        return batch

    return Reader(one=read, batch=read_batch)


def open_litdata(_shape: str, folder: Path) -> Reader:
    """Open LitData: by index one view is decoded at a time, in its stream windows of views."""
    from litdata import StreamingDataset

    by_index = StreamingDataset(str(folder / "litdata"), batch_decode=False)
    shuffled = StreamingDataset(str(folder / "litdata"), shuffle=True)
    return Reader(
        one=lambda row: by_index[row]["view"],
        batch=lambda rows: np.stack([by_index[row]["view"] for row in rows]),
        stream=lambda: (item["view"] for item in shuffled),
    )


def open_webdataset(_shape: str, folder: Path) -> Reader:
    """Open WebDataset: a stream alone."""
    import webdataset

    tars = sorted(map(str, folder.glob("*.tar")))
    dataset = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(SHUFFLED_AMONG).decode().to_tuple("npy")
    return Reader(stream=lambda: (entry for (entry,) in dataset))


def _buffers(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a buffer for one view and one for 32, each at the start of a page.

    Where a buffer starts up to 32 bytes further into its page than what is copied to it, as NumPy's own do beside a
    file's pages, some processors copy at a tenth of their speed.
    """
    _, entry, dtype = SHAPES[shape]
    return tuple(_at_a_page((count, *entry), np.dtype(dtype)) for count in (1, 32))  # type: ignore[return-value]


def _at_a_page(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 4096, dtype=np.uint8)
    start = -raw.ctypes.data % 4096
    return raw[start : start + size].view(dtype).reshape(shape)


READERS: dict[str, Callable[[str, Path], Reader]] = {
    "this reader": open_ours,
    "tensorstore": open_tensorstore,
    "zarr-python": open_zarr,
    "zarrs": open_zarrs,
    "memory-mapped NumPy": open_mapped,
    "LitData": open_litdata,
    "WebDataset": open_webdataset,
}
"""How to open each."""


def shuffled_rows(count: int, seed: int) -> list[int]:
    """Return all rows, shuffled."""
    return np.random.default_rng(seed).permutation(count).tolist()


def batches(rows: list[int], size: int) -> Iterator[list[int]]:
    """Return whole batches of rows."""
    return itertools.takewhile(lambda one: len(one) == size, (rows[at : at + size] for at in range(0, len(rows), size)))
