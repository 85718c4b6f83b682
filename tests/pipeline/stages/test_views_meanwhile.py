"""Another run writes views between the moment a run plans its work and the moment it gets the lease."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from extensions import copied, cut, grown
from stage_runs import contents, write_colours

from pipeline.leases.lease import leased
from pipeline.views import planning
from pipeline.views.worker import ViewCutter
from storage_schemas.format.errors import IdentityError

Meanwhile = Callable[[Callable[[], Any]], None]
SMALL = grown(draws=2)
MORE_DRAWS = grown(draws=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images."""
    return write_colours(tmp_path_factory.mktemp("ten") / "images", 10)


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their views."""
    where = tmp_path_factory.mktemp("made") / "cache"
    cut(SMALL, data, where, extend=False)
    return where


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Have another run do something just before the next lease is taken."""

    def set_up(act: Callable[[], Any]) -> None:
        @contextmanager
        def leased_late(*arguments: Any) -> Iterator[Any]:
            monkeypatch.setattr("pipeline.views.stage.leased", leased)
            act()
            with leased(*arguments) as lease:
                yield lease

        monkeypatch.setattr("pipeline.views.stage.leased", leased_late)

    return set_up


@pytest.fixture
def cut_shards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The view set of each shard that is cut from now on."""
    shards, step = list[str](), ViewCutter.cut

    def noted(worker: ViewCutter, task: Any) -> Any:
        shards.extend(shard.view_set.name for shard in task.shards)
        return step(worker, task)

    monkeypatch.setattr(ViewCutter, "cut", noted)
    return shards


def test_views_that_another_run_cut_meanwhile_are_not_cut_again(
    data: Path, made: Path, tmp_path: Path, meanwhile: Meanwhile, cut_shards: list[str]
) -> None:
    meanwhile(lambda: cut(SMALL, data, tmp_path / "cache", extend=False))
    said = cut(SMALL, data, tmp_path / "cache", extend=False)
    assert [line.split(" (")[0] for line in said] == ["views: complete, nothing to do"]
    assert cut_shards == ["low-128"] * 3, "those of the other run"
    assert contents(tmp_path / "cache") == contents(made)


def test_a_shard_that_another_run_cut_meanwhile_is_not_cut_again(
    data: Path, made: Path, tmp_path: Path, meanwhile: Meanwhile, cut_shards: list[str]
) -> None:
    where = copied(made, tmp_path / "cache")
    (where / "tables/shards/views/low-128/00000.parquet").unlink()
    meanwhile(lambda: cut(SMALL, data, where, extend=False))
    said = cut(SMALL, data, where, extend=False)
    assert [line.split(" (")[0] for line in said] == ["views: complete, nothing to do"]
    assert cut_shards == ["low-128"]
    assert contents(where) == contents(made)


def test_an_extension_by_another_run_is_not_undone_by_one_that_planned_before_it(
    data: Path, made: Path, tmp_path: Path, meanwhile: Meanwhile
) -> None:
    more = write_colours(tmp_path / "more", 13)
    where, expected = copied(made, tmp_path / "cache"), copied(made, tmp_path / "expected")
    cut(MORE_DRAWS, data, expected)
    cut(MORE_DRAWS, more, expected)
    meanwhile(lambda: cut(MORE_DRAWS, data, where))
    cut(MORE_DRAWS, more, where)
    assert contents(where) == contents(expected)


def test_a_cache_that_another_recipe_made_meanwhile_is_refused(
    data: Path, tmp_path: Path, meanwhile: Meanwhile
) -> None:
    meanwhile(lambda: cut(MORE_DRAWS, data, tmp_path / "cache", extend=False))
    with pytest.raises(IdentityError, match="draws: the cache has 3, this run has 2"):
        cut(SMALL, data, tmp_path / "cache", extend=False)


def test_images_are_listed_once_where_no_other_run_came_between(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings, list_images = list[str](), planning.list_images

    def noted(where: str, *arguments: Any) -> Any:
        listings.append(where)
        return list_images(where, *arguments)

    monkeypatch.setattr(planning, "list_images", noted)
    cut(SMALL, data, tmp_path / "cache", extend=False)
    cut(MORE_DRAWS, data, tmp_path / "cache")
    cut(MORE_DRAWS, None, tmp_path / "cache")
    assert listings == [str(data)] * 2
