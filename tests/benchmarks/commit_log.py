"""What it takes to open a cache of many shards: requests, time and memory, by another build and by this one, by turns.

    python -m tests.benchmarks.commit_log FOLDER BEFORE [SHARDS …]

FOLDER is for the caches: one for each number of shards (10,000 and 100,000), half of them of one view set and half of
one teacher with tiny features, whose log our own writer makes. BEFORE is a checkout of the build to compare with. Each
figure is of a process of its own: what is in the cache (`Cache.contents`), and the commit records of one shard of
features. The store is a folder that is read as one behind a network would be; its requests are counted. A listing
counts as one request for each 1,000 names. The caches hold no arrays: opening reads none.

Then a head of six million shards of one unit is made, with the snapshot of one of them, and its records are read.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SET, TEACHER, ROWS = "low-64", "t", 162
"""The view set, the teacher, and the row slots of a shard."""
ROUNDS = 3
"""Processes of each kind for each figure, by turns; the median counts."""


def make(folder: Path, shards: int) -> None:
    """Write manifests and commit records of a cache."""
    from storage_schemas.format import layout
    from storage_schemas.format.geometry import CanvasGeometry
    from storage_schemas.format.layout import ShardGrid
    from storage_schemas.format.manifest import TeacherManifest, ViewSetManifest, ViewsManifest
    from storage_schemas.format.views import ViewSet
    from storage_schemas.objects.publish import publish_group
    from storage_schemas.objects.store import Store
    from storage_schemas.shard_records import ShardRecord
    from storage_schemas.shard_writer import ShardKey, commit
    from tests.identities import features_identity, views_identity
    from tests.small_cache import spec_of

    store, view_set, spec = Store(uri=str(folder)), ViewSet.parse(SET), spec_of(TEACHER, 4, 4)
    grid = ShardGrid(counts=(shards * ROWS,), rows_per_shard=ROWS)
    shape = ViewSetManifest(grid=grid, geometry=CanvasGeometry(resolution=64, patch=16, margin=1))
    views = ViewsManifest(identity=views_identity("small"), sets={view_set: shape})
    publish_group(store, "", {"format": layout.FORMAT_VERSION, "recipe": "small"})
    publish_group(store, "views", views.attributes())
    features = TeacherManifest(spec=spec, identity=features_identity(spec, views.digest), tokens={view_set: 4})
    publish_group(store, "teachers")
    publish_group(store, f"teachers/{TEACHER}", features.attributes())
    units = {
        layout.views_unit(view_set): ((layout.pixels_array(view_set),), ("views", "rejected"), views.digest),
        layout.features_unit(view_set, TEACHER): (
            (layout.spatial_array(view_set, TEACHER), layout.summary_array(view_set, TEACHER)),
            ("placements",),
            features.digest,
        ),
    }
    os.fsync = lambda _: None  # the log of a benchmark need not outlive a power cut
    for unit, (arrays, tables, identity) in units.items():
        for shard in range(shards):
            shared = {"first_row": shard * ROWS, "rows": ROWS, "bytes": 5000, "identity": identity}
            records = [
                ShardRecord(
                    path=layout.array_object(array, shard, 4),
                    array=array,
                    chunks=os.urandom(4 * ROWS),
                    xxh3=os.urandom(16).hex(),
                    **shared,
                )
                for array in arrays
            ]
            records += [
                ShardRecord(
                    path=layout.table_part(table, SET, shard), array="", chunks=b"", xxh3=os.urandom(16).hex(), **shared
                )
                for table in tables
            ]
            commit(store, ShardKey(unit=unit, shard=shard, identity=identity), records)


def seal(folder: Path) -> None:
    """Seal the log of a cache."""
    from storage_schemas.objects.store import Store
    from storage_schemas.seal_log import seal_unit
    from storage_schemas.unit_log import open_logs

    store = Store(uri=str(folder))
    for unit in open_logs(store):
        seal_unit(store, unit)


def measure(uri: str, what: str, shard: int) -> None:
    """Print what opening a cache, or reading the records of one of its shards, takes in this process."""
    from storage_schemas.cache import Cache
    from storage_schemas.objects.store import Store
    from tests.counting_store import counted

    cache, unit = Cache(store=Store(uri=uri)), f"teachers/{TEACHER}/{SET}"
    cache.records(unit, cache.teacher_manifest(TEACHER).digest, [0])  # imports what all reading needs
    peak_memory()
    before = peak_memory()
    with counted() as requests:
        began = time.perf_counter()
        if what == "contents":
            cache.contents()
        else:
            cache.records(unit, "", [shard]) if hasattr(cache, "logs") else read_one(cache, unit, shard)
        seconds = time.perf_counter() - began
    listed = [folder.partition("//")[2] or folder for folder in requests.listings]
    names = sum(max(1, -(-sum(len(files) for _, _, files in os.walk(folder)) // 1000)) for folder in listed)
    memory = peak_memory() - before
    count = len(requests.reads) + len(requests.checks) + names
    print(json.dumps({"seconds": seconds, "requests": count, "memory": memory}))


def peak_memory() -> float:
    """Return the highest resident set of this process since the last call (MB)."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")
    return int(lines["VmHWM"].split()[0]) / 1024


def read_one(cache: object, unit: str, shard: int) -> None:
    """Read the records of one shard in builds whose readers know no heads."""
    from storage_schemas.commits import read_commit

    read_commit(cache.store, unit, shard)  # type: ignore[attr-defined]


def measured(checkout: Path, folder: Path, what: str, shard: int) -> dict[str, float]:
    """Run `measure` in a process of a build."""
    command = [sys.executable, str(Path(__file__).absolute()), "measure", f"counted://{folder}", what, str(shard)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    run = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def compare(folder: Path, before: Path, shards: int) -> None:
    """Print rows of the table for caches of so many shards."""
    plain, sealed, ours = folder / f"plain-{shards}", folder / f"sealed-{shards}", Path(__file__).parents[2]
    for place in (plain, sealed):
        if not place.exists():
            if place is sealed:
                subprocess.run(["cp", "-r", plain, sealed], check=True)
                began = time.perf_counter()
                seal(sealed)
                print(f"sealing {2 * shards:,} records took {time.perf_counter() - began:.1f} s", flush=True)
            else:
                began = time.perf_counter()
                make(plain, shards)
                print(f"writing them took {time.perf_counter() - began:.1f} s", flush=True)
    files = sum(len(names) for _, _, names in os.walk(sealed / "tables") if names) - 2 * shards
    kinds = {"before": (before, plain), "now, not sealed": (ours, plain), "now, sealed": (ours, sealed)}
    for what in ("contents", "one shard"):
        rounds = [
            {kind: measured(*place, what, shards // 2) for kind, place in kinds.items()}
            for _ in range(ROUNDS if shards <= 10_000 else 1)
        ]
        for kind in kinds:
            row = {name: sorted(each[kind][name] for each in rounds)[len(rounds) // 2] for name in rounds[0][kind]}
            print(
                f"| {2 * shards:,} | {what} | {kind} | {row['requests']:,.0f} | {row['seconds']:.3f} s "
                f"| {row['memory']:,.0f} MB |",
                flush=True,
            )
    print(f"heads and snapshots: {files} files", flush=True)


def simulate(folder: Path, shards: int = 6_000_000) -> None:
    """Print what it takes to find one shard's records in a log of so many, of one unit."""
    from storage_schemas import unit_log
    from storage_schemas.format.snapshots import SHARDS_PER_SNAPSHOT, Head, Snapshot, head_name
    from storage_schemas.objects.publish import publish_bytes
    from storage_schemas.objects.store import Store
    from storage_schemas.seal_log import seal_unit
    from storage_schemas.shard_records import ShardRecord
    from storage_schemas.shard_writer import ShardKey, commit

    store, unit, identity = Store(uri=str(folder / "simulated")), f"teachers/{TEACHER}/{SET}", "cd" * 32
    first = shards // 2 // SHARDS_PER_SNAPSHOT * SHARDS_PER_SNAPSHOT
    for shard in range(first, first + SHARDS_PER_SNAPSHOT):
        record = ShardRecord(
            path=f"features.zarr/{unit}/spatial/c/{shard}/0/0/0",
            array=f"{unit}/spatial",
            first_row=shard * ROWS,
            rows=ROWS,
            bytes=5000,
            xxh3=os.urandom(16).hex(),
            chunks=os.urandom(4 * ROWS),
            identity=identity,
        )
        records = [record, ShardRecord(**{name: getattr(record, name) for name in record.__slots__} | {"array": "s"})]
        commit(store, ShardKey(unit=unit, shard=shard, identity=identity), records)
    seal_unit(store, unit)
    [real] = unit_log.open_log(store, unit).snapshots
    starts = range(0, shards, SHARDS_PER_SNAPSHOT)
    entries = {name: getattr(real, name) for name in Snapshot.__slots__}
    others = [
        Snapshot(**entries | {"first": start, "stop": start + SHARDS_PER_SNAPSHOT, "xxh3": os.urandom(16).hex()})
        for start in starts
        if start != first
    ]
    snapshots = tuple(sorted([real, *others], key=lambda snapshot: snapshot.first))
    head = Head(unit=unit, epoch=1, identity=identity, snapshots=snapshots)
    publish_bytes(store, head_name(unit), head.to_json())
    print(f"head of {shards:,} shards: {len(snapshots):,} snapshots, {store.size(head_name(unit)) / 1e6:.2f} MB")
    print(f"each snapshot {real.size / 1e6:.2f} MB")
    for few, how in ((unit_log.FEW, "by its record"), (0, "by its snapshot")):
        program = (
            "import time; from storage_schemas import unit_log; from storage_schemas.objects.store import Store\n"
            "from tests.benchmarks.commit_log import peak_memory\n"
            f"unit_log.FEW = {few}; store = Store(uri={store.uri!r})\n"
            "unit_log.open_log(store, 'teachers/none/low-64')\n"
            "peak_memory(); start = peak_memory(); began, used = time.perf_counter(), time.process_time()\n"
            f"log = unit_log.open_log(store, {unit!r}); opened = time.perf_counter(); log.read({first + 7})\n"
            "read, used = time.perf_counter(), time.process_time() - used; grown = peak_memory() - start\n"
            "print(f'opened in {opened - began:.3f} s, read in {read - opened:.3f} s; {used:.3f} s of the processor,'"
            "f' {grown:.0f} MB')"
        )
        root = Path(__file__).parents[2]
        run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
        print(f"one shard of them {how}: {run.stdout.strip()}")


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        sys.path.insert(0, str(Path.cwd() / "tests"))
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        where, other, *sizes = sys.argv[1:]
        for size in map(int, sizes or ("10000", "100000")):
            compare(Path(where).absolute(), Path(other).absolute(), size // 2)
        simulate(Path(where).absolute())
