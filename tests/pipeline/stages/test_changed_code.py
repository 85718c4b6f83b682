"""A teacher whose code or libraries changed since its features were computed: refused, said, or accepted."""

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from stage_runs import contents, write_colours

from pipeline.__main__ import main
from pipeline.features.worker import FeatureExtractor
from storage_schemas.cache import Cache
from storage_schemas.format.computed_by import ComputedBy
from storage_schemas.objects.publish import publish_group
from storage_schemas.objects.store import Store

MINE = """
from torch import nn
from own_parts import quarters
from storage_schemas.format.teacher import TeacherSpec
from teachers.base import AbstractTeacher
from teachers.output import TeacherOutput
class Mine(AbstractTeacher):
    declared = TeacherSpec(name="mine", model="mine", dim=12, summary_dim=None, patch=16, size_rule="any", native=256,
                           mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    def __init__(self, *, spec, device, precision):
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)
    def features(self, images):
        return TeacherOutput(summary=None, spatial=quarters(images))
"""
PARTS = """
from teachers.quarter_mean import quarter_means
def quarters(images):
    return quarter_means(images, 16)
"""
BGR = PARTS.replace("(images, 16)", "(images.flip(1), 16)")
SETTINGS = {"low": "64", "high-share": "0", "tokens-per-shard": "80", "canvas-tokens": "0", "heldout": "0.2"}
VIEWS = [word for name, value in SETTINGS.items() for word in (f"--views.{name}", value)]
CALIBRATION = ["--views.draws", "1", "--calibration.tokens-per-channel", "1"]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a teacher of the user's own in two modules, and images."""
    (tmp_path / "own_mine.py").write_text(MINE)
    (tmp_path / "own_parts.py").write_text(PARTS)
    write_colours(tmp_path / "images", 12)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    forget()


def forget() -> None:
    """Forget the teacher's modules, as a new process would."""
    for name in ("own_mine", "own_parts"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


@pytest.fixture
def extract(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the teacher over the images; return the status, and all that was said."""

    def run(*more: str) -> tuple[int, str]:
        forget()
        places = ["--data", str(folder / "images"), "--cache", str(folder / "cache"), "--teacher", "own_mine:Mine"]
        status = main(["extract", *places, *VIEWS, *CALIBRATION, "--run.executor", "local", *more])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def lose_a_shard(folder: Path) -> None:
    """Remove the commit record of a shard, so that the next run computes it again."""
    (folder / "cache/tables/shards/teachers/mine/low-64/00001.parquet").unlink()


def history(folder: Path) -> tuple[ComputedBy, ...]:
    """What the cache records."""
    manifest = Cache(store=Store(uri=str(folder / "cache"))).teacher_manifest("mine")
    assert manifest is not None
    return manifest.computed_by


def digest_in(said: str) -> str:
    """The digest that a refusal names."""
    return said.split("--run.accept-change ")[1].split()[0]


def test_another_code_is_refused_whether_features_are_lacking_or_complete(folder: Path, extract: Run) -> None:
    assert extract()[0] == 0
    [first] = history(folder)
    (folder / "own_parts.py").write_text(BGR)
    for lacking in (False, True):
        if lacking:
            lose_a_shard(folder)
        before = contents(folder / "cache")
        status, said = extract()
        assert status == 2
        assert "teacher mine does not match what is already there" in said
        assert f'code.own_parts: the cache has "{first.code["own_parts"]}", this run has "' in said
        assert contents(folder / "cache") == before
    (folder / "own_parts.py").write_text(PARTS + "\n# a comment\n")
    assert extract()[0] == 0
    assert history(folder) == (first,)


def test_a_change_is_accepted_by_its_digest_alone_and_recorded(folder: Path, extract: Run) -> None:
    extract()
    lose_a_shard(folder)
    (folder / "own_parts.py").write_text(BGR)
    _, said = extract("--run.accept-change", "0" * 12)
    accepted = digest_in(said)
    status, said = extract("--run.accept-change", accepted)
    assert status == 0
    assert f"change {accepted} of the code or the libraries is accepted, and recorded" in said
    first, second = history(folder)
    assert second.digest == accepted
    assert first.libraries == second.libraries
    assert extract()[0] == 0  # both are known now
    (folder / "own_parts.py").write_text(PARTS + "more = 1\n")
    assert extract("--run.accept-change", accepted)[0] == 2
    status, said = main(["verify", "--cache", str(folder / "cache"), "--run.executor", "local"]), history(folder)
    assert (status, said) == (0, (first, second))


def test_a_change_is_accepted_where_nothing_is_lacking(folder: Path, extract: Run) -> None:
    extract()
    (folder / "own_parts.py").write_text(BGR)
    arrays = [path for path in contents(folder / "cache") if "/c/" in path]
    assert extract("--run.accept-change", digest_in(extract()[1]))[0] == 0
    assert len(history(folder)) == 2
    assert arrays == [path for path in contents(folder / "cache") if "/c/" in path]
    assert extract()[0] == 0


def test_phi_s_of_another_code_is_refused_before_there_are_features(folder: Path, extract: Run) -> None:
    extract()
    shutil.rmtree(folder / "cache/tables/shards/teachers")
    (folder / "cache/features.zarr/teachers/mine/zarr.json").unlink()
    (folder / "own_parts.py").write_text(BGR)
    assert extract()[0] == 2
    (folder / "own_parts.py").write_text(PARTS)
    assert extract()[0] == 0


def test_other_libraries_are_said_of_complete_features_and_refused_for_more(
    folder: Path, extract: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract()
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.99.0+cpu" if name == "torch" else version(name))
    status, said = extract()
    assert status == 0
    now = version("torch").partition("+")[0]
    change = f'libraries.torch (the cache has "{now}", this run has "2.99.0")'
    assert f"extract mine: computed with other libraries than this run's: {change}\n" in said
    lose_a_shard(folder)
    status, said = extract()
    assert status == 2
    assert f'libraries.torch: the cache has "{now}", this run has "2.99.0"\n' in said
    assert extract("--run.accept-change", digest_in(said))[0] == 0
    assert [kept.libraries["torch"] for kept in history(folder)] == [now, "2.99.0"]


def test_a_cache_from_before_goes_on_says_so_and_keeps_watch_from_then_on(folder: Path, extract: Run) -> None:
    extract()
    recorded = history(folder)
    store = Store(uri=str(folder / "cache"))
    for group in ("teachers/mine", "teachers/mine/phi_s"):
        attributes = Cache(store=store).attributes(group) or {}
        del attributes["computed_by"]
        publish_group(store, group, attributes)
    unknown = "extract mine: this cache does not record which code and which libraries computed its features"
    before = contents(folder / "cache")
    assert f"{unknown}\n" in extract()[1]
    assert contents(folder / "cache") == before
    lose_a_shard(folder)
    status, said = extract()
    assert status == 0
    assert f"{unknown}; from now on the cache records them, and a change is refused\n" in said
    assert history(folder) == (ComputedBy(code={}, libraries={}), *recorded)
    (folder / "own_parts.py").write_text(BGR)
    assert extract()[0] == 2


@pytest.mark.parametrize("fitted", [False, True], ids=["before PHI-S is fitted", "after PHI-S was fitted"])
def test_a_worker_with_another_code_than_the_first_is_refused(
    folder: Path, extract: Run, monkeypatch: pytest.MonkeyPatch, fitted: bool
) -> None:
    phi_s, asked = folder / "cache/features.zarr/teachers/mine/phi_s/zarr.json", list[ComputedBy]()

    def answer(_: FeatureExtractor) -> ComputedBy:
        other = phi_s.exists() if fitted else bool(asked)
        asked.append(ComputedBy(code={"own_mine": "2" if other else "1"}, libraries={}))
        return asked[-1]

    monkeypatch.setattr(FeatureExtractor, "_computed_by", property(answer))
    status, said = extract()
    assert status == 2
    assert 'code.own_mine: the first worker has "1", this run has "2"' in said
    assert phi_s.exists() == fitted
    assert not list((folder / "cache/tables/shards").glob("teachers/**/*.parquet"))
