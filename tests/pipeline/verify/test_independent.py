"""`verify --independent` reads chunks through zarr-python too: equal ones are counted, all others are named."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import google_crc32c
import numpy as np
import pytest
import zarr

from pipeline.__main__ import main
from pipeline.inventory.commit_log import committed_units
from pipeline.verify.independent import ChunkComparer, CompareTask, drawn_rows
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from pipeline.verify.store_file_system import StoreFileSystem
from pipeline.verify.verdict import Verdict
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, read_commits
from storage_schemas.format.errors import MissingError
from storage_schemas.format.shard_format import ArraySpec, Compression, StoredType
from storage_schemas.objects.publish import publish_bytes
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, array_record, create_array, open_shard
from storage_schemas.small_arrays import write_small_arrays

pytestmark = pytest.mark.usefixtures("unchecked")  # odd values have to reach the checks that users get
ALL = 10**6
SPATIAL = "teachers/dinov3/low-192/spatial"
PIXELS = "views/low-192/pixels"
MEND = (
    "(mend first what else is named of this array; if nothing else is, one of the two readers is wrong: "
    "do not train on this array, and report it)"
)
Rewrite = Callable[[str, Callable[[bytes], bytes]], Path]


def verified(cache: Path | str, **options: Any) -> Verdict:
    """Verify, in haste: what is found in arrays is found by the second reader."""
    settings: dict[str, Any] = {"quick": True, "independent": ALL} | options
    return verify_cache(Cache(store=Store(uri=str(cache))), VerifyOptions(**settings))


def found_by_zarr(verdict: Verdict) -> list[str]:
    return [str(problem) for problem in verdict.problems if "zarr-python" in str(problem)]


def stores(folder: Path) -> list[Store]:
    return [Store(uri=str(folder / "cache")), Store(uri=f"memory://independent{folder}")]


def write_array(store: Store, dtype: StoredType, compression: Compression) -> CompareTask:
    """Write five views of an array into two shards of three row slots, and one more shard that is never committed."""
    spec = ArraySpec(path="a/b", shape=(9, 2, 3, 4), dtype=dtype, rows_per_shard=3, compression=compression)
    draws, records = np.random.default_rng(0), {}
    create_array(store, spec)
    for shard, views in enumerate((3, 2, 3)):
        with open_shard(store, spec, shard) as writer:
            for _ in range(views):
                writer.append((draws.standard_normal(spec.entry_shape) * 50).astype(dtype))
        records[shard] = array_record(writer, ShardKey(unit="a", shard=shard, identity="0" * 64))
    del records[2]
    rows, fixes = drawn_rows(spec, records, ALL), {0: "mend 0", 1: "mend 1"}
    return CompareTask(spec=spec, records=records, rows=rows, fixes=fixes)


@pytest.mark.parametrize(("dtype", "compression"), list(product(get_args(StoredType), get_args(Compression))))
def test_both_readers_give_the_same_of_every_type_and_codec_in_a_folder_and_in_memory(
    dtype: StoredType, compression: Compression, tmp_path: Path
) -> None:
    for store in stores(tmp_path):
        task = write_array(store, dtype, compression)
        report = ChunkComparer(store=store).compare(task)
        assert report.problems == ()
        assert (task.rows, report.chunks, report.bytes) == ((0, 1, 2, 3, 4), 5, 5 * task.spec.entry_bytes)


def test_both_readers_give_the_same_of_small_arrays_of_every_rank(tmp_path: Path) -> None:
    arrays = {"scale": np.array(2.5), "mean": np.arange(3.0), "rotation": np.eye(3)}
    for store in stores(tmp_path):
        write_small_arrays(store, "g", arrays)
        reports = [ChunkComparer(store=store).compare_small(f"g/{name}") for name in arrays]
        assert [(report.problems, report.chunks, report.bytes) for report in reports] == [
            ((), 1, values.nbytes) for values in arrays.values()
        ]


def all_chunks(cache: Cache) -> int:
    """Count the committed views of every sharded array, and the small arrays."""
    commits = [read_commits(cache.store, unit) for unit in committed_units(cache)]
    records = [record for shards in commits for parts in shards.values() for record in parts]
    names = cache.store.listing("features.zarr")
    small = [name for name in names if name.endswith("/zarr.json") and is_array(cache.store.read(name))]
    small = [name for name in small if "/phi_s/" in name or "/stats/" in name]
    return sum(record.rows for record in records if record.array) + len(small)


def is_array(metadata: bytes) -> bool:
    return json.loads(metadata)["node_type"] == "array"


def test_a_sound_cache_is_read_whole_when_more_chunks_are_asked_for_than_there_are(small_run: Any) -> None:
    verdict = verified(small_run.cache, quick=False)
    assert verdict.problems == ()
    assert verdict.independent is not None
    cache = Cache(store=Store(uri=str(small_run.cache)))
    arrays = [path for path in small_run.cache.rglob("zarr.json") if is_array(path.read_bytes())]
    assert verdict.independent.chunks == all_chunks(cache)
    assert verdict.independent.arrays == len(arrays)
    assert verdict.independent.version == zarr.__version__


def test_a_sound_cache_in_memory_is_read_as_one_in_a_folder(small_run: Any) -> None:
    there = Store(uri=f"memory://{small_run.cache.parent.name}")
    for path in (path for path in small_run.cache.rglob("*") if path.is_file()):
        publish_bytes(there, path.relative_to(small_run.cache).as_posix(), path.read_bytes())
    verdict = verified(there.uri)
    assert verdict.problems == ()
    assert verdict.independent == verified(small_run.cache).independent


def test_of_each_array_as_many_chunks_are_read_as_are_asked_for(small_run: Any) -> None:
    single, two = (verified(small_run.cache, teacher="dinov3", independent=count).independent for count in (1, 2))
    assert single is not None
    assert two is not None
    sharded = 4  # spatial and summary of two sets; every small array is one chunk
    assert single.arrays == two.arrays == single.chunks
    assert two.chunks == single.chunks + sharded


# which chunks


def records(*views: int, identity: str = "0" * 64) -> dict[int, ShardRecord]:
    return {
        shard: ShardRecord(
            path="p", array="a/b", first_row=8 * shard, rows=rows, bytes=1, xxh3="", chunks=b"", identity=identity
        )
        for shard, rows in enumerate(views)
        if rows
    }


def spec_of(path: str = "a/b") -> ArraySpec:
    return ArraySpec(path=path, shape=(64, 4), dtype="float32", rows_per_shard=8)


def test_rows_are_drawn_from_committed_views_alone_each_once_and_the_same_every_time() -> None:
    held = records(3, 0, 8, 1)
    views = {0, 1, 2, *range(16, 24), 24}
    assert drawn_rows(spec_of(), held, ALL) == tuple(sorted(views))
    draws = [drawn_rows(spec_of(f"a/{number}"), held, 4) for number in range(60)]
    assert all(len(rows) == len(set(rows)) == 4 and list(rows) == sorted(rows) for rows in draws)
    assert set().union(*draws) == views
    assert draws == [drawn_rows(spec_of(f"a/{number}"), dict(reversed(held.items())), 4) for number in range(60)]
    assert drawn_rows(spec_of(), held, 4) != drawn_rows(spec_of(), records(3, 0, 8, 1, identity="1" * 64), 4)


def test_nothing_is_drawn_where_nothing_is_committed() -> None:
    assert drawn_rows(spec_of(), {}, 5) == ()
    assert drawn_rows(spec_of(), {0: replace(records(1)[0], rows=0)}, 5) == ()


def test_a_shard_that_is_not_committed_is_not_judged_by_fill_values(copied: Path, small_run: Any) -> None:
    (copied / "tables/shards/teachers/dinov3/low-192/00000.parquet").unlink()
    (copied / f"features.zarr/{SPATIAL}/c/0/0/0/0").unlink()
    verdict = verified(copied)
    assert verdict.problems == ()
    assert [facts.unit for facts in verdict.unfinished] == ["teachers/dinov3/low-192"]
    whole = verified(small_run.cache)
    assert verdict.independent is not None
    assert whole.independent is not None
    assert whole.independent.chunks - verdict.independent.chunks == 2 * 8, "spatial and summary of eight views"


# what is found


def patched(body: bytes, start: int, stop: int) -> bytes:
    """Change a byte of a chunk, and give it the checksum of its new bytes."""
    chunk = bytearray(body[start:stop])
    chunk[10] ^= 1
    chunk[-4:] = google_crc32c.value(bytes(chunk[:-4])).to_bytes(4, "little")
    return body[:start] + bytes(chunk) + body[stop:]


def test_a_chunk_that_was_changed_under_a_patched_checksum_is_found(rewritten: Rewrite) -> None:
    chunk = 12 * 12 * 96 * 2 + 4
    cache = rewritten(f"features.zarr/{SPATIAL}/c/0/0/0/0", lambda body: patched(body, 3 * chunk, 4 * chunk))
    assert zarr.open_array(cache / "features.zarr" / SPATIAL, mode="r")[3].shape == (12, 12, 96), "zarr-python reads it"
    assert verified(cache, independent=0).problems == ()
    [problem] = map(str, verified(cache).problems)
    assert problem.startswith(f"{SPATIAL} shard 0 row 3: is sound, but not the chunk that was committed here")
    assert problem.endswith(
        f"(delete tables/shards/teachers/dinov3/low-192/00000.parquet; then `make extract RECIPE=demo CACHE={cache} "
        "TEACHER=dinov3` writes the shard again)"
    )


def test_what_our_reader_finds_too_is_named_once(rewritten: Rewrite) -> None:
    def flip(body: bytes) -> bytes:
        return body[:9] + bytes([body[9] ^ 1]) + body[10:]

    cache = rewritten(f"features.zarr/{PIXELS}/c/0/0/0/0", flip)
    alone = verified(cache, quick=False, independent=0).problems
    assert len(alone) == 2
    assert verified(cache, quick=False).problems == alone


Change = Callable[[dict[str, Any]], Any]


def edited(rewritten: Rewrite, array: str, change: Change) -> Path:
    def edit(body: bytes) -> bytes:
        document = json.loads(body)
        change(document)
        return json.dumps(document).encode()

    return rewritten(f"features.zarr/{array}/zarr.json", edit)


def shorten(document: dict[str, Any]) -> None:
    document["shape"][0] = 3


def transpose(document: dict[str, Any]) -> None:
    def turned(shape: list[int]) -> list[int]:
        return [shape[0], *shape[:0:-1]]

    [sharding] = document["codecs"]
    document["shape"] = turned(document["shape"])
    document["chunk_grid"]["configuration"]["chunk_shape"] = turned(
        document["chunk_grid"]["configuration"]["chunk_shape"]
    )
    sharding["configuration"]["chunk_shape"] = turned(sharding["configuration"]["chunk_shape"])


def turn_images(document: dict[str, Any]) -> None:
    """Swap rows and columns within each entry: no shape tells."""
    codecs = document["codecs"][0]["configuration"]["codecs"]
    codecs.insert(0, {"name": "transpose", "configuration": {"order": [0, 2, 1, 3]}})


def separate_by_dots(document: dict[str, Any]) -> None:
    document["chunk_key_encoding"]["configuration"]["separator"] = "."


@pytest.mark.parametrize(
    ("array", "change", "found"),
    [
        (
            SPATIAL,
            lambda document: document.update(data_type="int16", fill_value=0),
            "zarr-python reads int16 (12, 12, 96), the manifests imply float16 (12, 12, 96)",
        ),
        (
            PIXELS,
            lambda document: document.update(data_type="int8"),
            "zarr-python reads int8 (224, 224, 3), the manifests imply uint8 (224, 224, 3)",
        ),
        (SPATIAL, transpose, "zarr-python reads float16 (96, 12, 12), the manifests imply float16 (12, 12, 96)"),
        (SPATIAL, lambda document: document.update(zarr_format=2), "zarr-python cannot open it: "),
        (SPATIAL, lambda document: document.update(data_type="float12"), "zarr-python cannot open it: "),
    ],
)
def test_an_array_whose_metadata_says_something_else_is_named(
    array: str, change: Change, found: str, rewritten: Rewrite
) -> None:
    cache = edited(rewritten, array, change)
    [problem] = found_by_zarr(verified(cache))
    assert problem.startswith(f"features.zarr/{array}/zarr.json: {found}")
    assert problem.endswith(MEND)


def test_an_array_without_metadata_cannot_be_opened(copied: Path) -> None:
    (copied / f"features.zarr/{SPATIAL}/zarr.json").unlink()
    [problem] = found_by_zarr(verified(copied))
    assert problem.startswith(f"features.zarr/{SPATIAL}/zarr.json: zarr-python cannot open it: ")


@pytest.mark.parametrize("change", [turn_images, separate_by_dots])
def test_entries_that_the_metadata_turns_or_hides_are_named_each_with_shard_and_row(
    change: Change, rewritten: Rewrite
) -> None:
    problems = found_by_zarr(verified(edited(rewritten, SPATIAL, change)))
    for row, problem in zip(range(13), problems, strict=True):
        place, _, found = problem.partition(": ")
        assert place == f"{SPATIAL} shard {row // 8} row {row}"
        assert "of 27648 bytes differently, the first at byte " in found
        assert found.startswith("zarr-python reads ")
        assert found.endswith(MEND)


def test_rows_that_lie_beyond_what_the_metadata_says_cannot_be_read(rewritten: Rewrite) -> None:
    problems = found_by_zarr(verified(edited(rewritten, SPATIAL, shorten)))
    assert [problem.partition(": ")[0] for problem in problems] == [
        f"{SPATIAL} shard {row // 8} row {row}" for row in range(3, 13)
    ]
    assert all(": zarr-python cannot read it: BoundsCheckError: " in problem for problem in problems)


def test_a_chunk_that_zarr_python_alone_cannot_read_is_named(tmp_path: Path) -> None:
    store = stores(tmp_path)[0]
    task = write_array(store, "float32", "zstd")
    place = tmp_path / "cache/features.zarr/a/b/zarr.json"
    place.write_text(place.read_text().replace('"zstd"', '"gzip"').replace('"checksum": false', '"level": 3'))
    problems = ChunkComparer(store=store).compare(task).problems
    assert [problem.place for problem in problems] == [f"a/b shard {row // 3} row {row}" for row in range(5)]
    assert all(problem.found.startswith("zarr-python cannot read it: ") for problem in problems)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda document: document.update(data_type="int64", fill_value=0),
            "zarr-python reads int64 (96,), the manifests imply",
        ),
        (
            lambda document: document["codecs"][0]["configuration"].update(endian="big"),
            " of 768 bytes differently, the first at byte",
        ),
    ],
)
def test_a_small_array_that_is_read_differently_is_named(change: Change, found: str, tmp_path: Path) -> None:
    store = Store(uri=str(tmp_path))
    write_small_arrays(store, "g", {"mean": np.random.default_rng(0).standard_normal(96)})
    ours, metadata = ChunkComparer(store=store), tmp_path / "features.zarr/g/mean/zarr.json"
    document = json.loads(metadata.read_text())
    change(document)
    with pytest.MonkeyPatch.context() as patch:
        # our reader refuses any other metadata, and the check of PHI-S names it: here it is held to the values
        values = np.random.default_rng(0).standard_normal(96)
        patch.setattr("pipeline.verify.independent.read_small_array", lambda *_: values)
        metadata.write_text(json.dumps(document))
        [problem] = ours.compare_small("g/mean").problems
    assert found in problem.found


def test_a_damaged_small_array_is_named_by_its_own_check_alone(rewritten: Rewrite) -> None:
    name = "features.zarr/teachers/dinov3/phi_s/rotation/c/0/0"
    cache = rewritten(name, lambda body: body[:-9] + bytes([body[-9] ^ 1]) + body[-8:])
    [problem] = map(str, verified(cache).problems)
    assert problem.startswith("teachers/dinov3/phi_s/rotation: its CRC32C does not match its bytes")


def test_a_damaged_record_and_a_shard_that_the_grid_lacks_are_passed_over(copied: Path) -> None:
    folder = copied / "tables/shards/teachers/dinov3/low-192"
    shutil.copy(folder / "00001.parquet", folder / "00007.parquet")
    (folder / "00000.parquet").unlink()
    (folder / "00000.parquet").write_bytes(b"damaged")
    alone = verified(copied, independent=0).problems
    assert len(alone) == 2
    assert verified(copied).problems == alone


# the command


def test_the_command_says_what_was_read(small_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--cache", str(small_run.cache), "--quick", "--independent", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"independent: zarr-python {zarr.__version__} reads ")
    assert first.endswith("as our reader does, byte for byte")
    assert second.startswith("verify: sound: ")


def test_without_zarr_python_it_is_refused_before_anything_is_read(
    small_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert verified(small_run.cache, independent=0).problems == ()
    monkeypatch.setattr("pipeline.verify.stage.read_manifests", None)
    with pytest.raises(MissingError) as refusal:
        verified(small_run.cache, independent=1)
    assert str(refusal.value) == (
        "a package is missing:\n  zarr: this command needs it: not installed (pip install 'stillhouse[pipeline]')"
    )


def test_zarr_python_is_imported_only_where_it_is_asked_for() -> None:
    program = "import sys, pipeline.verify.stage, pipeline.verify.independent; print('zarr' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_tasks_and_reports_survive_the_way_to_another_process_and_back(tmp_path: Path) -> None:
    store = stores(tmp_path)[0]
    task = write_array(store, "int8", "none")
    assert pickle.loads(pickle.dumps(task)) == task
    report = pickle.loads(pickle.dumps(ChunkComparer(store=store))).compare(task)
    assert pickle.loads(pickle.dumps(report)) == report


# a store, as zarr-python sees it


def test_a_store_gives_ranges_from_either_end_and_misses_what_is_missing(tmp_path: Path) -> None:
    body = bytes(range(100))
    for store in stores(tmp_path):
        publish_bytes(store, "a/b", body)
        seen = StoreFileSystem(store)
        spans = [(None, None), (10, 20), (90, 200), (-7, None), (5, None), (None, 4), (100, 120), (-200, None)]
        for start, end in spans:
            assert seen.cat_file("a/b", start=start, end=end) == body[start:end]
        for start in (None, 3):
            with pytest.raises(FileNotFoundError):
                seen.cat_file("a/c", start=start)
