"""A thousand flipped bits, and objects that are gone, empty, cut or another's: `verify` and readers find them all."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from os.path import commonpath
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.inventory.commit_log import committed_units
from pipeline.verify.options import VerifyOptions
from pipeline.verify.problems import Findings
from pipeline.verify.stage import verify_cache
from pipeline.verify.teachers import check_teacher
from pipeline.verify.verdict import Verdict
from pipeline.verify.views import check_root, check_views
from storage_schemas.cache import Cache
from storage_schemas.commits import read_commit, record_path
from storage_schemas.format.errors import AbstractStillhouseError, Problem
from storage_schemas.objects.store import Store
from storage_schemas.sharded_array import ShardedArray
from trainer.data.dataset import BatchRequest, CachedBatches
from trainer.data.source import open_source

Damage = Callable[[Path, str], bytes | None]
SAID_BY_ALL = ("features.zarr/zarr.json", "features.zarr/views/zarr.json", "tables/images/00000.parquet")
"""What is read before all else: damaged, it leaves the rest without meaning."""


def names(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def is_foremost(name: str) -> bool:
    """Say whether an object is read before others that mean nothing without it."""
    parts = name.split("/")
    return name in SAID_BY_ALL or (parts[1] == "teachers" and len(parts) == 4 and parts[3] == "zarr.json")


def apart(cache: Path) -> dict[str, list[str]]:
    """Return the objects that can be damaged at once: one of each group, for the first that is met ends a check."""
    groups, store = defaultdict(list), Store(uri=str(cache))
    for unit, shards in committed_units(Cache(store=store)).items():
        for shard in shards:
            record = record_path(unit, shard)
            groups[record] = [record, *(named_record.path for named_record in read_commit(store, unit, shard))]
    told = {name for group in groups.values() for name in group}
    for name in names(cache):
        if name not in told and not is_foremost(name):
            parts = name.split("/")
            groups["/".join(parts[:4]) if parts[3:4] in (["stats"], ["phi_s"]) else name].append(name)
    return dict(groups)


def node(name: str) -> str:
    """Return what a problem with an object names at least."""
    if name == SAID_BY_ALL[0]:
        return name
    return name.removeprefix("features.zarr/").removesuffix("/zarr.json").partition("/c/")[0].removesuffix("/c")


def put(path: Path, body: bytes | None) -> None:
    path.unlink(missing_ok=True)
    if body is not None:
        path.write_bytes(body)


def verified(cache: Path) -> Verdict:
    return verify_cache(Cache(store=Store(uri=str(cache))), VerifyOptions())


def arrays_of(cache: Path) -> dict[str, ShardedArray]:
    """Return the array of each shard's object, over that shard alone, with its index."""
    opened, found = Cache(store=Store(uri=str(cache))), {}
    for unit, shards in committed_units(opened).items():
        for shard in shards:
            for record in read_commit(opened.store, unit, shard):
                if record.array:
                    array = opened.array(record.array, {shard: [record]})
                    array.read([record.first_row])
                    found[record.path] = array
    return found


def flip(body: bytes, first: int, stop: int, draws: random.Random) -> bytes:
    place = draws.randrange(first, stop)
    return body[:place] + bytes([body[place] ^ 1 << draws.randrange(8)]) + body[place + 1 :]


def flipped(body: bytes, array: ShardedArray | None, draws: random.Random) -> tuple[bytes, list[str]]:
    """Flip a bit of an object, or one in each chunk of a shard; return its bytes, and what must be named of it."""
    if array is None:
        return flip(body, 0, len(body), draws), [""]
    [(shard, index)] = array.indices.items()
    record = array.records[shard]
    if draws.random() < 0.5:
        first = max(int(offset + length) for offset, length in index[: record.rows].tolist())
        return flip(body, first, len(body), draws), [f" shard {shard}"]
    for offset, length in index[: record.rows].tolist():
        body = flip(body, offset, offset + length, draws)
    return body, [f" shard {shard} row {record.first_row + row}:" for row in range(record.rows)]


def unseen_flips(cache: Path, count: int, draws: random.Random) -> Iterator[str]:
    """Flip bits, many objects at a time, and let `verify` look; yield those that it does not name."""
    groups, arrays, made = apart(cache), arrays_of(cache), 0
    while made < count:
        whole: dict[str, bytes] = {}
        told: list[tuple[str, str]] = []
        for group in groups.values():
            name = draws.choice(group)
            whole[name] = (cache / name).read_bytes()
            body, rows = flipped(whole[name], arrays.get(name), draws)
            put(cache / name, body)
            told += [(name, row) for row in rows]
        said = "\n".join(map(str, verified(cache).problems))
        yield from (f"{name}{row}" for name, row in told if node(name) + row not in said)
        made += len(told)
        for name, body in whole.items():
            put(cache / name, body)


@pytest.mark.usefixtures("unchecked")
def test_a_thousand_flipped_bits_are_found_and_each_place_named(copied: Path) -> None:
    assert list(unseen_flips(copied, 1000, random.Random(7))) == []


def foremost_problems(cache: Path, name: str) -> list[Problem]:
    """Look at an object as `verify` does before it looks at others."""
    opened, found = Cache(store=Store(uri=str(cache))), Findings()
    try:
        if name in SAID_BY_ALL:
            check_views(opened, check_root(opened, found), "make views", found)
        else:
            views = opened.views_manifest()
            assert views is not None
            check_teacher(opened, name.split("/")[2], views, "make extract", found)
    except AbstractStillhouseError as error:
        return list(error.problems)
    return found.problems


def test_flipped_bits_of_what_is_read_first_are_found_and_the_place_named(copied: Path) -> None:
    draws = random.Random(8)
    for name in [name for name in names(copied) if is_foremost(name)]:
        body = (copied / name).read_bytes()
        for _ in range(12):
            put(copied / name, flip(body, 0, len(body), draws))
            said = "\n".join(map(str, foremost_problems(copied, name)))
            assert node(name) in said or (name == SAID_BY_ALL[0] and str(copied) in said), said
        put(copied / name, body)


@lru_cache(maxsize=1)
def sound_objects(cache: Path) -> dict[str, bytes]:
    """Return what a copy holds before anything of it is damaged."""
    return {name: (cache / name).read_bytes() for name in names(cache)}


def another(cache: Path, name: str) -> bytes:
    """Return a sound object of the same kind with other bytes: of the same size where there is one, and near."""
    every, kind = sound_objects(cache), Path(name).suffix
    body = every[name]
    others = [other for other in every if Path(other).suffix == kind and every[other] != body]
    return every[
        min(others, key=lambda other: (len(every[other]) != len(body), -len(commonpath([other, name])), other))
    ]


DAMAGES: Mapping[str, Damage] = {
    "missing": lambda *_: None,
    "empty": lambda *_: b"",
    "cut": lambda cache, name: (cache / name).read_bytes()[:-2],
    "another's": another,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_objects_that_are_missing_empty_cut_or_anothers_are_all_found(damage: str, copied: Path) -> None:
    groups = apart(copied)
    for turn in range(4):
        chosen = [group[turn * len(group) // 4] for group in groups.values()]
        if damage == "missing":  # details without any record are no damage: they were never cut, or `gc` dropped them
            chosen = [name for name in chosen if not ("/detail/" in name and name.startswith("tables/shards/"))]
        bodies = {name: DAMAGES[damage](copied, name) for name in chosen}
        whole = {name: (copied / name).read_bytes() for name in chosen}
        for name, body in bodies.items():
            put(copied / name, body)
        verdict = verified(copied)
        said = "\n".join(map(str, verdict.problems))
        left = {facts.unit for facts in verdict.unfinished} if damage == "missing" else set()
        unseen = [name for name in chosen if named(name) not in said and undone(name) not in left]
        assert unseen == []
        for name, body in whole.items():
            put(copied / name, body)


def named(name: str) -> str:
    """Return what a problem with an object, or with one in its place, names at least."""
    group, is_phi_s, _ = node(name).partition("/phi_s/")
    return f"{group}/phi_s" if is_phi_s else node(name)


def undone(name: str) -> str:
    """Return what is not done yet where an object, written last, is missing."""
    return name.removeprefix("tables/shards/").rpartition("/")[0] if name.startswith("tables/") else node(name)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_read_first_is_found_missing_empty_cut_or_anothers(damage: str, copied: Path) -> None:
    for name in [name for name in names(copied) if is_foremost(name)]:
        whole = (copied / name).read_bytes()
        put(copied / name, DAMAGES[damage](copied, name))
        said = foremost_problems(copied, name) or verified(copied).problems
        assert any(node(name) in str(problem) or str(copied) in str(problem) for problem in said), name
        put(copied / name, whole)


READ = (
    "features.zarr/zarr.json",
    "features.zarr/views/zarr.json",
    "features.zarr/views/low-192/pixels/zarr.json",
    "features.zarr/views/low-192/pixels/c/0/0/0/0",
    "features.zarr/teachers/dinov3/zarr.json",
    "features.zarr/teachers/dinov3/low-192/spatial/zarr.json",
    "features.zarr/teachers/dinov3/low-192/spatial/c/0/0/0/0",
    "features.zarr/teachers/dinov3/low-192/summary/c/0/0",
    "features.zarr/teachers/dinov3/phi_s/zarr.json",
    "features.zarr/teachers/dinov3/phi_s/mean/zarr.json",
    "features.zarr/teachers/dinov3/phi_s/rotation/c/0/0",
    "features.zarr/teachers/dinov3/stats/zarr.json",
    "features.zarr/teachers/dinov3/stats/variance/zarr.json",
    "features.zarr/teachers/dinov3/stats/low-192/mean/c/0",
    "features.zarr/teachers/dinov3/stats/dispersion/c",
    "tables/views/low-192/00000.parquet",
    "tables/placements/dinov3/low-192/00000.parquet",
    "tables/shards/views/low-192/00000.parquet",
    "tables/shards/teachers/dinov3/low-192/00000.parquet",
)
"""An object of every kind that the trainer reads."""


def read_all(cache: Path) -> list[np.ndarray]:
    """Read one set and one teacher, as the trainer does."""
    source = open_source(Cache(store=Store(uri=str(cache))), ["dinov3"], ["low-192"])
    [(view_set, of_set)] = source.sets.items()
    requests = tuple(
        BatchRequest(
            view_set=view_set, split=split, rows=rows[:], window_keys=tuple((split, row) for row in rows.tolist())
        )
        for split, rows in of_set.rows.items()
    )
    batches = CachedBatches(source=source)[requests]
    targets = [batch.targets["dinov3"] for batch in batches]
    tensors = [batch.pixels for batch in batches] + [target.spatial for target in targets]
    return [tensor.numpy() for tensor in [*tensors, *filter(torch.is_tensor, (target.summary for target in targets))]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_readers_refuse_whatever_is_missing_empty_cut_or_anothers(damage: str, copied: Path) -> None:
    sound = read_all(copied)
    for name in READ:
        whole = (copied / name).read_bytes()
        put(copied / name, DAMAGES[damage](copied, name))
        with pytest.raises(AbstractStillhouseError) as refusal:
            read_all(copied)
        # what else of the group betrays it may be named in its place
        place = named(name).removeprefix("tables/shards/").removeprefix("teachers/").removesuffix("/00000.parquet")
        place = place.removesuffix("/phi_s") if damage == "missing" else place
        assert place in str(refusal.value) or str(copied) in str(refusal.value), (name, str(refusal.value))
        put(copied / name, whole)
    assert all(map(np.array_equal, read_all(copied), sound))
