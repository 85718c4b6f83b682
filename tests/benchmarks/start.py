"""What a training run takes to start on caches of many views: time, requests, memory, by another build and by this one.

    python -m tests.benchmarks.start FOLDER BEFORE [VIEWS …]

FOLDER is for the caches, of 10,000, 1,000,000 and 10,000,000 views of 32 px with one teacher of 64 bytes a view. Their
logs and tables are made by our own writer; the array shards of a cache have the same bytes, and are one file with many
names. BEFORE is a checkout of the build to compare with. The builds take turns, each figure in processes of its own:

- the training process opens the cache, plans the run, and asks for the batches of 8 steps of 256 views;
- a reading process is given what PyTorch sends it, and reads them.

The store is a folder that is read as one behind a network would be: each request takes 20 ms, of those that are sent
together 16 at a time. Memory is the highest resident set, over that before the cache was opened.

Then a cache of 10⁹ views is simulated: the head of its log, of which the row slots of each split are found, and the
order of its views, from the first step and from the middle of an epoch.
"""

import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROWS = {10_000: 162, 1_000_000: 162, 10_000_000: 1620}
"""Views → row slots in a shard. Shards of 162 views would make 250,000 parts of tables of the largest cache."""
SET, BATCH, STEPS, DELAY, IN_FLIGHT = "low-32", 256, 8, 0.02, 16


def make(folder: Path, views: int) -> None:
    """Write a cache."""
    sys.path[:0] = [str(Path(__file__).parents[1] / "trainer"), str(Path(__file__).parents[1])]
    import conftest as tests

    from storage_schemas.format.layout import ShardGrid
    from storage_schemas.format.views import ViewSet
    from storage_schemas.objects.publish import publish_group

    os.fsync = lambda _: None  # a benchmark's cache need not outlive a power cut
    tests.ROWS_PER_SHARD = ROWS[views]
    maker, view_set = tests.CacheMaker(folder, {SET: 10}), ViewSet.parse(SET)
    shape = maker.manifest.sets[view_set]
    grid = ShardGrid(counts=(views,), rows_per_shard=ROWS[views])
    maker.root().teacher(tests.ANY, lambda *_: False).stats(tests.ANY)
    about = maker.cache.attributes("teachers/any/stats")
    publish_group(maker.store, "teachers/any/stats", {**about, "shards": {SET: [[0, grid.shards]]}})
    maker.manifest = replace(maker.manifest, sets={view_set: replace(shape, grid=grid)})
    publish_group(maker.store, "views", maker.manifest.attributes())
    _write_units(maker, tests.ANY, view_set, grid)


def seal(folder: Path) -> None:
    """Seal the log of a cache."""
    from storage_schemas.objects.store import Store
    from storage_schemas.seal_log import seal_unit
    from storage_schemas.unit_log import open_logs

    store = Store(uri=str(folder))
    for unit in open_logs(store):
        seal_unit(store, unit)


def _write_units(maker: Any, spec: Any, view_set: Any, grid: Any) -> None:
    from storage_schemas.format import layout
    from storage_schemas.shard_writer import ShardKey

    features = maker.cache.teacher_manifest(spec.name)
    pixels, spatial = layout.pixels_array(view_set), layout.spatial_array(view_set, spec.name)
    summary = layout.summary_array(view_set, spec.name)
    units = {
        layout.views_unit(view_set): ({pixels: (48, 48, 3)}, maker.manifest.digest),
        layout.features_unit(view_set, spec.name): ({spatial: (2, 2, 8), summary: (6,)}, features.digest),
    }
    for unit, (arrays, identity) in units.items():
        key = ShardKey(unit=unit, shard=0, identity=identity)
        whole = [_whole_shard(maker, path, shape, key, grid) for path, shape in arrays.items()]
        for shard in range(grid.shards):
            _write_shard(maker, unit, replace(key, shard=shard), whole, grid)


def _whole_shard(maker: Any, path: str, shape: tuple[int, ...], key: Any, grid: Any) -> Any:
    """Write the first shard of an array, of one entry again and again, and return its record."""
    import numpy as np

    from storage_schemas.format.shard_format import ArraySpec
    from storage_schemas.shard_writer import array_record, create_array, open_shard

    dtype = "uint8" if path.startswith("views/") else "float32" if path.endswith("/summary") else "float16"
    spec = ArraySpec(path=path, shape=(grid.rows, *shape), dtype=dtype, rows_per_shard=grid.rows_per_shard)  # type: ignore[arg-type]
    create_array(maker.store, spec)
    with open_shard(maker.store, spec, 0) as writer:
        for row in range(grid.rows_per_shard):
            writer.append(np.full(shape, row % 100, dtype=dtype))
    return array_record(writer, key)


def _write_shard(maker: Any, unit: str, key: Any, whole: list[Any], grid: Any) -> None:
    """Commit a shard whose arrays are other names of the first one's objects."""
    from storage_schemas.format import layout
    from storage_schemas.format.shard_format import CHECKSUM_BYTES
    from storage_schemas.shard_writer import commit, write_table_part

    slots, records = grid.slots(key.shard), []
    for record in whole:
        path = record.path.replace("/c/0", f"/c/{key.shard}")
        _link(maker.store.path(record.path), maker.store.path(path))
        chunks = record.chunks[: CHECKSUM_BYTES * len(slots)]
        records.append(replace(record, path=path, first_row=slots.start, rows=len(slots), chunks=chunks))
    if unit.startswith("views/"):
        table, name = _views(slots, grid.rows), layout.table_part("views", SET, key.shard)
    else:
        table, name = _placements(slots), layout.table_part("placements", f"any/{SET}", key.shard)
    commit(maker.store, key, [*records, write_table_part(maker.store, name, table, slots.start, key)])


def _link(source: str, name: str) -> None:
    os.makedirs(os.path.dirname(name), exist_ok=True)
    if not os.path.exists(name):
        os.link(source, name)


def _views(slots: range, rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    from storage_schemas.format.tables import VIEWS

    count = len(slots)
    plain = [field for field in VIEWS if field.type != pa.string()]
    numbers = {field.name: np.zeros(count, field.type.to_pandas_dtype()) for field in plain}
    held = np.arange(slots.start, slots.stop) >= rows * 19 // 20
    texts = {"image": [f"image-{row // 4:09d}.jpg" for row in slots], "sha256": ["0" * 64] * count}
    columns = {**numbers, **texts, "row": np.array(slots), "split": np.where(held, "heldout", "train").tolist()}
    return pa.table([pa.array(columns[field.name], field.type) for field in VIEWS], schema=VIEWS)


def _placements(slots: range) -> Any:
    import numpy as np
    import pyarrow as pa

    from storage_schemas.format.tables import PLACEMENTS

    row, none = np.array(slots), pa.nulls(len(slots))
    columns = {"row": row, "offset_row": row % 2, "offset_col": row // 2 % 2, "mosaic": none, "cell": none}
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in PLACEMENTS], schema=PLACEMENTS)


def recipe_of() -> Any:
    """The run that starts."""
    from trainer.settings.config import TrainRecipe
    from trainer.settings.running import DataSettings

    return TrainRecipe(name="benchmark", student="test_vit", steps=STEPS, data=DataSettings(batch_low=BATCH))


def slow() -> None:
    """Let each request take as long as one over a network."""
    from tests.counting_store import CountedFiles

    def slowed(method: Any) -> Any:
        def call(self: Any, names: Any, *arguments: Any, **settings: Any) -> Any:
            together = len(names) if isinstance(names, list | tuple) else 1
            time.sleep(DELAY * -(-together // IN_FLIGHT))
            return method(self, names, *arguments, **settings)

        return call

    for name in ("cat_ranges", "info", "exists", "find", "ls"):
        setattr(CountedFiles, name, slowed(getattr(CountedFiles, name)))


def plan(uri: str, where: str) -> None:
    """Be the training process: print what it takes to ask for the first batches, and leave them for the reader."""
    from storage_schemas.cache import Cache
    from storage_schemas.objects.store import Store
    from tests.counting_store import counted
    from trainer.data.dataset import CachedBatches
    from trainer.data.loader import TrainingStream
    from trainer.data.schedule import make_schedule
    from trainer.data.source import open_source

    slow()
    before, began = peak_memory(), time.perf_counter()
    with counted() as requests:
        source, recipe = open_source(Cache(store=Store(uri=uri))), recipe_of()
        dataset = CachedBatches(source=source)
        asked = list(TrainingStream(dataset, make_schedule(source, recipe), recipe)._requests(0))
    seconds, memory = time.perf_counter() - began, peak_memory() - before
    Path(where).write_bytes(pickle.dumps((dataset, asked)))
    print(json.dumps({"seconds": seconds, "memory": memory, "requests": requests.total}))


def read(_: str, where: str) -> None:
    """Be a reading process: print what it takes to read the first batch, and its memory after all of them."""
    import trainer.data.dataset
    from tests.counting_store import counted

    assert trainer.data.dataset
    slow()
    before, began = peak_memory(), time.perf_counter()
    with counted() as requests:
        dataset, asked = pickle.loads(Path(where).read_bytes())
        dataset[asked[0]]
        seconds, first = time.perf_counter() - began, requests.total
        for step in asked[1:]:
            dataset[step]
    print(json.dumps({"seconds": seconds, "memory": peak_memory() - before, "requests": first}))


def peak_memory() -> float:
    """Return the highest resident set of this process since the last call (MB)."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")
    return int(lines["VmHWM"].split()[0]) / 1024


def measured(checkout: Path, folder: Path, what: str) -> dict[str, float]:
    """Run a process of a build."""
    where = folder.parent / "asked.pickle"
    command = [sys.executable, str(Path(__file__).absolute()), what, f"counted://{folder}", str(where)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    run = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    return json.loads(run.stdout)


def compare(folder: Path, before: Path, views: int) -> None:
    """Print the rows of the table for caches of so many views."""
    ours = Path(__file__).parents[2]
    plain, sealed = (folder / f"{name}-{views}" for name in ("plain", "sealed"))
    if not plain.exists():
        make(plain, views)
    if not sealed.exists():
        subprocess.run(["cp", "-al", plain, sealed], check=True)
        seal(sealed)
    builds = {"before": (before, plain), "now": (ours, plain), "now, sealed": (ours, sealed)}
    for build, (checkout, place) in builds.items():
        planned, read_ = measured(checkout, place, "plan"), measured(checkout, place, "read")
        cells = (planned["requests"], planned["seconds"], planned["memory"], read_["requests"])
        print("| {:,} | {} | {:,} | {:.1f} s | {:.0f} MB | {:,}".format(views, build, *cells), end="")
        print(
            f" | {read_['seconds']:.2f} s | {read_['memory']:.0f} MB | {planned['seconds'] + read_['seconds']:.1f} s |",
            flush=True,
        )


def simulate(views: int) -> None:
    """Print what the order of so many views takes."""
    from storage_schemas.format.views import ViewSet
    from storage_schemas.row_ranges import row_ranges
    from trainer.data.order import steps
    from trainer.data.order_types import Order, ShuffledSet

    rows = ShuffledSet(rows=row_ranges([0], [views]), rows_per_shard=162, proportion=1.0)
    order = Order(seed=0, sets={ViewSet.parse(SET): rows}, batches={"low": 1024}, window_shards=8)
    for start in (0, views // 2048):
        peak_memory()
        before, began = peak_memory(), time.perf_counter()
        stream = steps(order, start)
        next(stream)
        first = time.perf_counter() - began
        for _ in range(200):
            next(stream)
        each = (time.perf_counter() - began - first) / (200 * 1024)
        print(
            f"| {views:,} | from step {start:,} | first step {1000 * first:.1f} ms | {1e6 * each:.2f} µs a view "
            f"| {peak_memory() - before:.1f} MB |",
            flush=True,
        )


def simulate_head(views: int) -> None:
    """Print what it takes to find the row slots of each split by a head of so many views."""
    from functools import partial

    from storage_schemas.format.layout import ShardGrid
    from storage_schemas.format.snapshots import SHARDS_PER_SNAPSHOT, Head, Snapshot, parse_head
    from storage_schemas.objects.store import Store
    from storage_schemas.open_shards import OpenShards, SlotValues, UnitRecords
    from storage_schemas.split_rows import find_splits, read_counts
    from storage_schemas.unit_log import UnitLog

    grid = ShardGrid(counts=(views,), rows_per_shard=162)
    starts = range(0, grid.shards, SHARDS_PER_SNAPSHOT)
    snapshots = tuple(
        _snapshot(Snapshot, start, min(start + SHARDS_PER_SNAPSHOT, grid.shards), grid) for start in starts
    )
    body = Head(unit="views/low-32", epoch=1, identity="ab" * 32, snapshots=snapshots).to_json()
    del snapshots
    peak_memory()
    before, began = peak_memory(), time.perf_counter()
    head = parse_head(body, "tables/heads/views/low-32/head.json")
    log = UnitLog(store=Store(uri="memory://none"), unit="views/low-32", head=head, newer={})
    splits = SlotValues("views/low-32", 162, OpenShards(partial(_splits_of, grid.shards * 19 // 20), 100))
    records = UnitRecords(log, "ab" * 32, grid.shards, 100)
    [found] = find_splits(grid, read_counts(records, grid, "ab" * 32), splits)
    counts = {split: len(rows) for split, rows in found.rows.items()}
    seconds = time.perf_counter() - began
    print(
        f"| {views:,} | head of {len(body) / 1e6:.1f} MB | {seconds:.2f} s | {peak_memory() - before:.0f} MB "
        f"| {len(splits.values)} parts of `views` read | {counts} |",
        flush=True,
    )


def _snapshot(kind: Any, first: int, stop: int, grid: Any) -> Any:
    views = grid.slots(stop - 1).stop - first * grid.rows_per_shard
    sizes = {"missing": (), "epochs": (0,), "rejected": 0, "bytes": 10**9, "size": 10**6, "xxh3": os.urandom(16).hex()}
    return kind(first=first, stop=stop, views=views, **sizes)


def _splits_of(border: int, shards: Any) -> dict[int, Any]:
    import numpy as np

    return {shard: np.full(162, int(shard >= border), dtype=np.int8) for shard in shards}


def main(folder: str, before: str, *sizes: str) -> None:
    """Print both tables."""
    for views in map(int, sizes or ROWS):
        compare(Path(folder), Path(before), views)
    for views in (10_000, 10**6, 10**9):
        simulate(views)
    for views in (10**6, 10**9):
        simulate_head(views)


if __name__ == "__main__":
    if sys.argv[1] in ("plan", "read"):
        {"plan": plan, "read": read}[sys.argv[1]](*sys.argv[2:])
    else:
        main(*sys.argv[1:])
