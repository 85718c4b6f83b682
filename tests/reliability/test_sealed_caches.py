"""A cache whose commit log was sealed is extended, repaired, dropped from and collected as one that was not."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_caches import LOCAL, MADE, TinyCache, write_images

from pipeline.__main__ import main
from pipeline.compact.options import CompactOptions
from pipeline.compact.stage import compact_log
from pipeline.inspect.cache import inspect_cache
from pipeline.leases.lease import WHOLE_LEASE, leased, teacher_lease
from pipeline.verify.drop import drop_teacher
from pipeline.verify.gc import collect_garbage
from pipeline.verify.options import DropOptions, GcOptions, VerifyOptions
from pipeline.verify.stage import verify_cache
from pipeline.verify.verdict import Verdict
from storage_schemas import seal_log
from storage_schemas.commits import read_commit, to_table
from storage_schemas.format.errors import BusyError, CorruptionError, MissingError, SettingError
from storage_schemas.format.snapshots import HEADS, SNAPSHOTS, head_name
from storage_schemas.format.tables import to_parquet
from storage_schemas.objects.publish import publish_bytes
from trainer.data.source import open_source

TEACHERS = ("direct", "fixed")
LOGS = ("tables/heads/", "tables/snapshots/", "tables/shards/", "leases/")
UNIT = "teachers/direct/low-64"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    """A finished cache of two teachers, whose log was never sealed."""
    root = tmp_path_factory.mktemp("sealed")
    tiny = TinyCache(where=root / "cache", images=write_images(root / "images"))
    for name in TEACHERS:
        tiny.extract(MADE, TEACHERS, name)
        tiny.measure(name)
    return tiny


@pytest.fixture(autouse=True)
def few_shards_per_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots of at most two shards."""
    monkeypatch.setattr(seal_log, "SHARDS_PER_SNAPSHOT", 2)


@pytest.fixture
def sealed(made: TinyCache, tmp_path: Path) -> TinyCache:
    """A copy of it, whose log is sealed."""
    shutil.copytree(made.where, tmp_path / "cache")
    tiny = replace(made, where=tmp_path / "cache")
    compact(tiny)
    return tiny


def compact(tiny: TinyCache, *forget: str) -> list[str]:
    """Seal a log, and return what is said."""
    said: list[str] = []
    compact_log(tiny.cache, CompactOptions(cache=str(tiny.where), forget=forget), said.append)
    return said


def contents(tiny: TinyCache, *, log: bool = False) -> dict[str, bytes]:
    """Return every object by name; those of the commit log only where they are asked for, and never claims."""
    files = (path for path in tiny.where.rglob("*") if path.is_file())
    bodies = {path.relative_to(tiny.where).as_posix(): path.read_bytes() for path in files}
    bodies.pop("features.zarr/zarr.json")  # it names the format
    return {name: body for name, body in bodies.items() if not name.startswith(("leases/",) if log else LOGS)}


def verified(tiny: TinyCache) -> Verdict:
    """Check a cache."""
    return verify_cache(tiny.cache, VerifyOptions(run=LOCAL))


def require_sound(tiny: TinyCache) -> None:
    """Check that a cache is complete and has no leftovers."""
    verdict = verified(tiny)
    assert (verdict.problems, verdict.unfinished, verdict.leftovers, verdict.foreign) == ((), (), {}, {})


def test_sealing_adds_a_log_and_changes_nothing_else(made: TinyCache, sealed: TinyCache) -> None:
    before, after = contents(made, log=True), contents(sealed, log=True)
    assert {name: after[name] for name in before} == before
    added = sorted(after.keys() - before.keys())
    units = {name.removeprefix(f"{HEADS}/").removesuffix("/head.json") for name in added if name.startswith(HEADS)}
    assert units == {"views/low-64", "views/low-64/detail/fixed", UNIT, "teachers/fixed/low-64"}
    assert all(name.startswith((HEADS, SNAPSHOTS)) for name in added)
    require_sound(sealed)
    facts, sealed_facts = inspect_cache(made.cache), inspect_cache(sealed.cache)
    assert (facts.format, sealed_facts.format) == (1, 2)
    assert (sealed_facts.view_sets, sealed_facts.teachers) == (facts.view_sets, facts.teachers)
    assert sealed.cache.contents() == made.cache.contents()
    assert open_source(sealed.cache).identity == open_source(made.cache).identity
    assert compact(sealed)[-1].startswith("compact: complete, nothing to do (")
    assert contents(sealed, log=True) == after


def test_reading_a_cache_without_heads_writes_nothing(made: TinyCache) -> None:
    before = contents(made, log=True)
    made.cache.contents()
    open_source(made.cache)
    require_sound(made)
    assert contents(made, log=True) == before
    assert b'"format": 1' in (made.where / "features.zarr/zarr.json").read_bytes()


@pytest.mark.slow
def test_a_sealed_cache_is_extended_dropped_and_collected_as_one_that_is_not_sealed(
    made: TinyCache, sealed: TinyCache, tmp_path: Path
) -> None:
    shutil.copytree(made.where, tmp_path / "plain")
    plain, history = replace(made, where=tmp_path / "plain"), (*MADE, "images")
    for tiny in (plain, sealed):
        tiny.cut(history, TEACHERS, extend=True)
        for name in TEACHERS:
            tiny.extract(history, TEACHERS, name)
            tiny.measure(name)
        require_sound(tiny)
    assert contents(sealed) == contents(plain)
    assert list((sealed.where / "tables/shards" / UNIT / "after/00001").iterdir())
    compact(sealed)
    assert verified(sealed).leftovers.keys() == {name for name in contents(sealed, log=True) if is_old(sealed, name)}
    collect_garbage(sealed.cache, GcOptions(cache=str(sealed.where), recipe="demo", delete=True), str)
    require_sound(sealed)
    assert contents(sealed) == contents(plain)
    for tiny in (plain, sealed):
        drop_teacher(tiny.cache, DropOptions(cache=str(tiny.where), teacher="fixed", delete=True), str)
    assert contents(sealed) == contents(plain)
    assert not [name for name in contents(sealed, log=True) if "teachers/fixed/" in name]
    require_sound(sealed)
    for tiny in (plain, sealed):
        tiny.extract(history, TEACHERS, "fixed")
        tiny.measure("fixed")
        require_sound(tiny)
    assert contents(sealed) == contents(plain)


def is_old(tiny: TinyCache, name: str) -> bool:
    """Say whether an object is a snapshot that no head lists."""
    listed = {listed for log in tiny.cache.logs().values() for listed in log.objects()}
    return name.startswith(SNAPSHOTS) and name not in listed


@pytest.mark.parametrize("array", ["views/low-64/pixels", f"{UNIT}/spatial"])
def test_a_lost_shard_of_a_sealed_log_is_written_again_as_the_message_says(
    sealed: TinyCache, array: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(sealed)
    [shard] = (path for path in (sealed.where / "features.zarr" / array / "c/1").rglob("*") if path.is_file())
    shard.unlink()
    with pytest.raises(CorruptionError) as refusal:
        sealed.extract(MADE, TEACHERS, "direct")
    advised = re.search(r"run `make compact CACHE=(\S+) ARGS=\"(--forget [^\"]*)\"`; then `make ", str(refusal.value))
    assert advised is not None, str(refusal.value)
    [problem] = {problem.place: problem for problem in verified(sealed).problems}.values()
    assert f'run `make compact CACHE={advised[1]} ARGS="{advised[2]}"`' in str(problem)
    assert main(["compact", "--cache", advised[1], *shlex.split(advised[2])]) == 0
    assert "1 shards are not committed any more" in capsys.readouterr().out
    assert {facts.unit for facts in verified(sealed).unfinished} == {array.rpartition("/")[0]}
    sealed.cut(MADE, TEACHERS)
    sealed.extract(MADE, TEACHERS, "direct")
    assert contents(sealed) == before
    verdict = verified(sealed)
    assert (verdict.problems, verdict.unfinished) == ((), ())
    assert all(is_old(sealed, name) for name in verdict.leftovers)


def test_verify_compares_snapshots_with_records_and_names_what_differs(sealed: TinyCache) -> None:
    first, second = (sealed.cache.log(UNIT).place(shard) for shard in (0, 1))
    records = read_commit(sealed.cache.store, UNIT, 0)
    (sealed.where / second).unlink()
    odd = [replace(records[0], chunks=bytes(len(records[0].chunks))), *records[1:]]
    publish_bytes(sealed.cache.store, first, to_parquet(to_table(odd)))
    problems = [str(problem) for problem in verified(sealed).problems]
    assert any(f"{second}: is not there" in problem and "--forget" in problem for problem in problems)
    assert any(f"says something else of shard 0 than {first} (delete {head_name(UNIT)}: " in each for each in problems)


def test_a_damaged_head_or_snapshot_is_named_and_deleting_the_head_is_the_way_back(sealed: TinyCache) -> None:
    before = contents(sealed, log=True)
    snapshot = sealed.cache.log(UNIT).objects()[1]
    (sealed.where / snapshot).write_bytes(b"PAR1")
    problems = [problem for problem in verified(sealed).problems if problem.place == snapshot]
    assert problems
    assert all(f"delete {head_name(UNIT)}" in str(problem) for problem in problems)
    (sealed.where / head_name(UNIT)).write_bytes(b"{}")
    with pytest.raises(CorruptionError, match=re.escape(head_name(UNIT))):
        verified(sealed)
    (sealed.where / head_name(UNIT)).unlink()
    compact(sealed)
    assert {name: body for name, body in contents(sealed, log=True).items() if "head" not in name} == {
        name: body for name, body in before.items() if "head" not in name
    }
    require_sound(sealed)


def test_details_of_a_sealed_log_are_collected_head_first(sealed: TinyCache, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    store_type = type(sealed.cache.store)
    remove = store_type.remove
    monkeypatch.setattr(store_type, "remove", lambda store, name: (deleted.append(name), remove(store, name))[1])
    drop_teacher(sealed.cache, DropOptions(cache=str(sealed.where), teacher="fixed", details=True, delete=True), str)
    of_log = [name for name in deleted if name.startswith(LOGS[:3])]
    kinds = [name.split("/")[1] for name in of_log]
    assert kinds == sorted(kinds, key=["heads", "shards", "snapshots"].index)
    assert {"heads", "shards", "snapshots"} == set(kinds)
    assert verified(sealed).problems == ()


def test_a_run_seals_what_it_wrote_where_that_is_worth_it(
    made: TinyCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.compact.stage.WORTH_SEALING", 2)
    tiny = replace(made, where=tmp_path / "cache")
    tiny.extract(MADE, TEACHERS, "direct")
    units = {"views/low-64", "views/low-64/detail/fixed", UNIT}
    assert {unit for unit, log in tiny.cache.logs().items() if log.head is not None and not log.newer} == units
    tiny.measure("direct")
    tiny.extract(MADE, TEACHERS, "fixed")
    tiny.measure("fixed")
    assert contents(tiny) == contents(made)
    require_sound(tiny)


def test_a_cache_is_sealed_by_one_run_at_a_time(sealed: TinyCache) -> None:
    for lease in (WHOLE_LEASE, teacher_lease("direct")):
        with leased(sealed.cache, lease, "elsewhere"), pytest.raises(BusyError, match="elsewhere"):
            compact(sealed)


def test_what_is_to_be_forgotten_must_be_a_committed_shard(sealed: TinyCache) -> None:
    with pytest.raises(SettingError, match="names no shard"):
        compact(sealed, "tables/shards/x.parquet")
    with pytest.raises(MissingError, match="is not committed"):
        compact(sealed, f"{UNIT}/00099")
