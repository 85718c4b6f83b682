"""Caches from strangers: sealed documents with odd values, and tables that inflate, are refused in one message."""

import copy
import hashlib
import io
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.__main__ import main
from pipeline.config import RunConfig
from pipeline.inspect.cache import inspect_cache
from pipeline.verify.leftovers import find_leftovers
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from storage_schemas.cache import Cache
from storage_schemas.commits import read_commits
from storage_schemas.format.errors import AbstractStillhouseError, ContractError, CorruptionError
from storage_schemas.format.layout import ATTRIBUTE
from storage_schemas.format.seal import sealed, unsealed
from storage_schemas.format.seeds import generator
from storage_schemas.format.tables import SHARDS, from_parquet, to_parquet
from storage_schemas.objects.store import Store

pytestmark = pytest.mark.usefixtures("unchecked")  # odd values have to reach the checks that users get
DOCUMENTS = (
    "features.zarr/zarr.json",
    "features.zarr/views/zarr.json",
    "features.zarr/teachers/quarter-mean-fixed/zarr.json",
    "features.zarr/teachers/quarter-mean-fixed/phi_s/zarr.json",
    "features.zarr/teachers/quarter-mean-fixed/stats/zarr.json",
)
ARRAYS = (
    "features.zarr/views/low-192/pixels/zarr.json",
    "features.zarr/teachers/quarter-mean-fixed/low-192/spatial/zarr.json",
    "features.zarr/teachers/quarter-mean-fixed/phi_s/rotation/zarr.json",
    "features.zarr/teachers/quarter-mean-fixed/stats/mean/zarr.json",
)
NESTED: Any = 1
for _ in range(200):
    NESTED = [NESTED]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 10**9, 10**12, 2**63, 2**64, 10**30, 0.5, 1e308, -0.0),
    *("", "x", "\x1b[31m", "a\nb", "../..", "low-192", "x" * 10**5, [], [[]], [0], [10**12, 10**13], {}, {"": 0}),
    *({"low-192": 10**12}, {"low-192": [[0, 10**12]]}, {"source": {}}, NESTED),
)
"""What takes a value's place."""
MEMORY = 3 * 2**30
"""Bytes of address space that a command may take beyond what the process has."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document, but the whole."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*path, name)
        yield from places(inner, (*path, name))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A document with another value at a place; without it where the value is `...`."""
    document = copy.deepcopy(document)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return document


def put(path: Path, body: bytes) -> None:
    path.unlink(missing_ok=True)  # it is a link to the file that others read
    path.write_bytes(body)


def resealed(body: bytes, change: Callable[[Any], Any]) -> bytes:
    """A group's metadata with other values under a right seal."""
    document = json.loads(body)
    ours = change(unsealed(document["attributes"][ATTRIBUTE], "x"))
    # as a stranger seals: also what our digest would refuse to seal
    document["attributes"][ATTRIBUTE] = sealed(ours)
    return json.dumps(document).encode()


def look(where: Path) -> list[str]:
    """Run everything that reads a cache; return the messages of those that refuse it."""
    cache, run, refused = Cache(store=Store(uri=str(where))), RunConfig(executor="local"), list[str]()
    for read in (
        cache.contents,
        lambda: cache.view("low-192", 0, units="raw"),
        lambda: inspect_cache(cache),
        lambda: find_leftovers(cache),
        lambda: verify_cache(cache, VerifyOptions(cache=str(where), quick=True, run=run)),
        lambda: cache.stats("quarter-mean-fixed"),
    ):
        try:
            found = read()
        except AbstractStillhouseError as error:
            refused.append(str(error))
        else:
            refused += [str(problem) for problem in getattr(found, "problems", ())]
    return refused


@pytest.fixture
def bounded() -> Iterator[None]:
    """No command may take memory without bound."""
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzzed(name: str, document: Any, count: int) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Draw changes of a document: a place, and the value that takes its place."""
    everywhere, draws = list(places(document)), generator(("strangers", name))
    every = [(path, value) for path in everywhere for value in (*VALUES, ...)]
    for at in draws.permutation(len(every))[:count].tolist():
        yield every[at]


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("count", [6, pytest.param(400, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize("name", [*DOCUMENTS, *ARRAYS])
def test_odd_values_under_a_right_seal_are_right_or_refused_in_one_message(copied: Path, name: str, count: int) -> None:
    body = (copied / name).read_bytes()
    whole = json.loads(body)
    document = unsealed(whole["attributes"][ATTRIBUTE], name) if name in DOCUMENTS else whole
    assert look(copied) == []
    for path, value in fuzzed(name, document, count):
        other = changed(document, path, value)
        try:
            text = resealed(body, lambda _, other=other: other) if name in DOCUMENTS else json.dumps(other).encode()
        except ContractError:
            continue  # it cannot even be sealed
        put(copied / name, text)
        for message in look(copied):
            assert len(message) < 20_000, (path, value)
            assert message.isprintable() or "\n" in message, (path, value)
    put(copied / name, body)


HOSTILE: Mapping[str, tuple[tuple[Any, ...], Any, str]] = {
    "views of 10⁹ shards": (("sets", "low-192", "views"), [10**12], "125000000000 shards, the most are"),
    "fractional": (("sets", "low-192", "views", 0), 12.5, "12.5 is not a whole number"),
    "textual": (("sets", "low-192", "rows_per_shard"), "8", "'8' is not a whole number"),
    "no sets": (("sets",), {}, "dict of 0 is not an object of 1 to 1000 fields"),
    "deep": (("identity", "views", "low"), NESTED, "is nested more than 32 levels deep"),
    "identity of another shape": (("identity",), [1], "list of 1 is not an object"),
    "canvas": (("sets", "low-192", "margin"), 16_000, "has canvases of 256192 px"),
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_no_cache_of_ours_says_is_named_with_its_bound(
    copied: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, value, found = HOSTILE[kind]
    place = copied / DOCUMENTS[1]
    put(place, resealed(place.read_bytes(), lambda document: changed(document, path, value)))
    for command in (["inspect"], ["gc"], ["verify", "--quick", "--run.executor", "local"]):
        assert main([*command, "--cache", str(copied)]) == 2
        assert found in capsys.readouterr().err


def test_statistics_over_10_to_the_12_shards_are_refused(copied: Path) -> None:
    place = copied / DOCUMENTS[4]
    put(place, resealed(place.read_bytes(), lambda found: changed(found, ("shards", "low-192"), [[0, 10**12]])))
    with pytest.raises(ContractError, match="1000000000000 is not a whole number from 0 to"):
        Cache(store=Store(uri=str(copied))).stats("quarter-mean-fixed")


def test_a_document_nested_a_hundred_thousand_deep_is_refused(copied: Path) -> None:
    put(copied / DOCUMENTS[0], b"[" * 10**5 + b"]" * 10**5)
    with pytest.raises((ContractError, CorruptionError), match="nested"):
        Cache(store=Store(uri=str(copied))).require()


@pytest.mark.usefixtures("bounded")
def test_a_small_array_of_absurd_size_is_refused_though_a_sparse_file_holds_it(copied: Path) -> None:
    folder = copied / "features.zarr/teachers/quarter-mean-fixed/phi_s/mean"
    put(folder / "c/0", b"")
    os.truncate(folder / "c/0", 2**40)
    with pytest.raises(CorruptionError, match="has 1099511627776 bytes, expected at most 1048576"):
        Cache(store=Store(uri=str(copied))).phi_s("quarter-mean-fixed")
    document = json.loads((folder / "zarr.json").read_text())
    document["shape"] = document["chunk_grid"]["configuration"]["chunk_shape"] = [10**9, 10**9]
    put(folder / "zarr.json", json.dumps(document).encode())
    with pytest.raises(CorruptionError, match="is not the metadata of a small array"):
        Cache(store=Store(uri=str(copied))).phi_s("quarter-mean-fixed")


def hostile_table(kind: str) -> pa.Table:
    """A table that takes kilobytes in a file and gigabytes in memory."""
    if kind == "equal numbers":
        zeros = pa.array(np.zeros(3 * 10**7, np.int64))
        return pa.table([zeros, zeros], pa.schema([pa.field(name, pa.int64(), nullable=False) for name in "ab"]))
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5000, np.int32)), pa.array(["x" * 10**6]))
    return pa.table([texts], pa.schema([pa.field("reason", texts.type, nullable=False)]))


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", ["equal numbers", "a text of a megabyte"])
def test_a_table_that_inflates_from_kilobytes_to_gigabytes_is_refused(kind: str) -> None:
    table, sink = hostile_table(kind), io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"stillhouse.sha256": b"0" * 64})
    body = sink.getvalue()
    assert len(body) < 10**6
    at = body.rindex(b"0" * 64)
    body = body[:at] + hashlib.sha256(body).hexdigest().encode() + body[at + 64 :]
    types = [pa.int64() if pa.types.is_integer(field.type) else pa.string() for field in table.schema]
    schema = pa.schema(pa.field(*named, nullable=False) for named in zip(table.schema.names, types, strict=True))
    with pytest.raises(CorruptionError, match=r"would take \d+ bytes in memory, a file of its size \d+"):
        from_parquet(body, schema, "tables/x.parquet")


def test_a_commit_record_with_numbers_below_zero_is_refused(copied: Path) -> None:
    name = "tables/shards/views/low-192/00000.parquet"
    rows = from_parquet((copied / name).read_bytes(), SHARDS, name).to_pylist()
    for column in ("first_row", "rows", "bytes"):
        put(copied / name, to_parquet(pa.Table.from_pylist([{**row, column: -1} for row in rows], SHARDS)))
        with pytest.raises(ContractError, match="has a number below 0"):
            read_commits(Store(uri=str(copied)), "views/low-192")


def test_the_cache_that_these_tests_start_from_is_sound(copied: Path, tmp_path: Path) -> None:
    shutil.copytree(copied, tmp_path / "other")
    assert look(tmp_path / "other") == []
