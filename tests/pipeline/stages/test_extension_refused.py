"""An extension must be asked for, and nothing but an extension is one."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from extensions import BASE, copied, cut, grown
from stage_runs import contents, write_colours

from storage_schemas.format.errors import AbstractStillhouseError, IdentityError, MissingError

RECIPE = grown(BASE, draws=2, low=(128, 192), seed=3)
HINT = "what to do: to add what is new and keep what is there, run `make views ARGS=--extend`; otherwise "
ELSE_RECIPE = "use the recipe and settings that made this cache, or point CACHE at a new place"
ELSE_IMAGES = "set DATA to the images that this cache was made from, or point CACHE at a new place"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images."""
    return write_colours(tmp_path_factory.mktemp("ten") / "images", 10)


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same and two more."""
    return write_colours(tmp_path_factory.mktemp("twelve") / "images", 12)


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their views."""
    where = tmp_path_factory.mktemp("made") / "cache"
    cut(RECIPE, data, where, extend=False)
    return where


def refused(kind: type[AbstractStillhouseError], *arguments: Any, **more: Any) -> list[str]:
    """The lines of a refusal, which changed nothing."""
    before = contents(arguments[2])
    with pytest.raises(kind) as refusal:
        cut(*arguments, **more)
    assert contents(arguments[2]) == before
    return str(refusal.value).split("\n  ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"draws": 3}, ["views.draws: the cache has 2, this run has 3"]),
        ({"low": (128, 192, 256)}, ["views.low: the cache has [128, 192], this run has [128, 192, 256]"]),
        ({"high": (256,)}, ["views.high: the cache has [], this run has [256]"]),
        ({"low_proportions": (1.0, 2.0)}, ["views.low_proportions: the cache has [], this run has [1.0, 2.0]"]),
    ],
)
def test_a_recipe_that_extends_the_caches_is_refused_unless_that_is_asked_for(
    data: Path, made: Path, tmp_path: Path, change: dict[str, Any], said: list[str]
) -> None:
    where, recipe = copied(made, tmp_path / "cache"), grown(RECIPE, **change)
    assert refused(IdentityError, recipe, data, where, extend=False) == [
        "recipe growing does not match what is already there:",
        *said,
        HINT + ELSE_RECIPE,
    ]
    cut(recipe, data, where)
    assert cut(recipe, data, where, extend=False)[-1].startswith("views: complete, nothing to do")
    back = ELSE_RECIPE if "low_proportions" not in change else f"{HINT.removeprefix('what to do: ')}{ELSE_RECIPE}"
    assert refused(IdentityError, RECIPE, data, where, extend=False)[-1] == f"what to do: {back}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"draws": 1}, ["views.draws: the cache has 2, this run has 1"]),
        ({"low": (128,)}, ["views.low: the cache has [128, 192], this run has [128]"]),
        ({"margin": 1}, ["views.margin: the cache has 2, this run has 1"]),
        (
            {"draws": 3, "seed": 4},
            ["views.draws: the cache has 2, this run has 3", "views.seed: the cache has 3, this run has 4"],
        ),
        ({"heldout": 0.5}, ["views.heldout: the cache has 0.2, this run has 0.5"]),
        ({"duplicates": "drop"}, ['views.duplicates: the cache has "keep", this run has "drop"']),
    ],
)
@pytest.mark.parametrize("extend", [False, True])
def test_a_recipe_that_takes_away_or_changes_is_refused_always(
    data: Path, made: Path, change: dict[str, Any], said: list[str], extend: bool
) -> None:
    assert refused(IdentityError, grown(RECIPE, **change), data, made, extend=extend) == [
        "recipe growing does not match what is already there:",
        *said,
        f"what to do: {ELSE_RECIPE}",
    ]


def test_images_that_are_added_are_refused_unless_that_is_asked_for(more: Path, made: Path, tmp_path: Path) -> None:
    where = copied(made, tmp_path / "cache")
    subject, count, digests, fix = refused(IdentityError, RECIPE, more, where, extend=False)
    assert subject == f"image list of {more} does not match what is already there:"
    assert count == "images.count: the cache has 10, this run has 12"
    assert digests.startswith("images.keys_sha256: the cache has ")
    assert fix == HINT + ELSE_IMAGES
    assert cut(RECIPE, more, where)[0].endswith("; 4 to cut in 2 shards")


def test_images_that_are_gone_are_refused_always(more: Path, made: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(more, tmp_path / "images"))
    (other / "003.png").unlink()
    for extend in (False, True):
        subject, count, _, fix = refused(IdentityError, RECIPE, other, made, extend=extend)
        assert subject == f"image list of {other} does not match what is already there:"
        assert count == "images.count: the cache has 10, this run has 11"
        assert fix == f"what to do: {ELSE_IMAGES}"


def test_an_extension_needs_the_images(made: Path) -> None:
    assert refused(MissingError, grown(RECIPE, draws=3), None, made)[1].startswith("--data: is not given")


def test_an_extension_that_finds_nothing_new_does_nothing(data: Path, made: Path) -> None:
    before = contents(made)
    assert [line.split(" (")[0] for line in cut(RECIPE, data, made)] == ["views: complete, nothing to do"]
    assert contents(made) == before


def test_a_cache_may_be_made_by_the_command_that_would_extend_it(data: Path, made: Path, tmp_path: Path) -> None:
    cut(RECIPE, data, tmp_path / "cache")
    assert contents(tmp_path / "cache") == contents(made)


def test_images_that_moved_change_nothing_that_is_written(data: Path, made: Path, tmp_path: Path) -> None:
    where, moved = copied(made, tmp_path / "cache"), Path(shutil.copytree(data, tmp_path / "moved"))
    before = contents(where)
    (where / "tables/shards/views/low-128/00000.parquet").unlink()
    cut(RECIPE, moved, where, extend=False)
    assert contents(where) == before


@pytest.mark.parametrize("part", [0, 1])
def test_a_part_of_the_image_list_that_is_lost_is_written_again(
    more: Path, made: Path, tmp_path: Path, part: int
) -> None:
    where = copied(made, tmp_path / "cache")
    cut(RECIPE, more, where)
    before, name = contents(where), f"tables/images/{part:05d}.parquet"
    listed = pq.read_table(where / name)
    (where / name).unlink()
    (where / "tables/shards/views/low-128/00000.parquet").unlink()
    cut(RECIPE, more, where, extend=False)
    assert pq.read_table(where / name).drop("uri") == listed.drop("uri")  # they are in another folder now
    assert contents(where) | {name: ""} == before | {name: ""}


def test_a_part_of_the_image_list_that_is_lost_cannot_be_told_from_what_is_new(
    more: Path, made: Path, tmp_path: Path
) -> None:
    where = copied(made, tmp_path / "cache")
    cut(RECIPE, more, where)
    most = write_colours(tmp_path / "most", 13)
    (where / "tables/images/00000.parquet").unlink()
    assert refused(MissingError, RECIPE, most, where) == [
        "image list is missing:",
        f"tables/images/00000.parquet: is missing or damaged, and {most} does not hold exactly the images of this "
        "cache (restore it from a copy, or set DATA to the images that this cache was made from)",
    ]


@pytest.mark.parametrize("extend", [False, True])
def test_a_manifest_that_is_lost_is_not_written_otherwise_than_it_was(
    data: Path, more: Path, made: Path, tmp_path: Path, extend: bool
) -> None:
    where = copied(made, tmp_path / "cache")
    (where / "features.zarr/views/zarr.json").unlink()
    copy = f"(put it back from a copy of {where})"
    assert refused(IdentityError, RECIPE, more, where, extend=extend) == [
        "manifest of views does not match what is already there:",
        "features.zarr/views/zarr.json: is missing, and the committed shards of views/low-128 are not those that this "
        f"run would cut {copy}",
    ]
    cut(RECIPE, data, where, extend=extend)
    assert contents(where) == contents(made)
    cut(RECIPE, more, where)
    (where / "features.zarr/views/zarr.json").unlink()
    assert refused(IdentityError, RECIPE, more, where, extend=extend) == [
        "manifest of views does not match what is already there:",
        "features.zarr/views/zarr.json: is missing, and nothing else records which views were added by which extension "
        + copy,
    ]


def test_a_copy_of_what_is_there_is_left_out_whichever_comes_first_by_key(tmp_path: Path) -> None:
    recipe, data, where = grown(BASE, duplicates="drop"), write_colours(tmp_path / "images", 6), tmp_path / "cache"
    cut(recipe, data, where, extend=False)
    before = contents(where)
    for copy in ("000-.png", "a.png"):
        shutil.copyfile(data / "003.png", data / copy)
    write_colours(tmp_path / "more", 7)
    shutil.copyfile(tmp_path / "more/006.png", data / "006.png")
    shutil.copyfile(data / "006.png", data / "007.png")
    said = cut(recipe, data, where)
    assert said[:2] == [
        "views: reading 10 images to find copies",
        "views: 3 copies left out (000-.png = 003.png, 007.png = 006.png, a.png = 003.png)",
    ]
    assert said[2] == "views: 7 views: low-128 7; 1 to cut in 1 shards"
    after = contents(where)
    assert {name for name in before if after[name] != before[name]} <= {
        "features.zarr/views/zarr.json",
        "features.zarr/views/low-128/pixels/zarr.json",
        "features.zarr/views/low-128/detail/quarter-mean-fixed/zarr.json",
    }
    assert [line.split(" (")[0] for line in cut(recipe, data, where, extend=False)] == [
        "views: complete, nothing to do"
    ]


def test_an_image_of_two_resolutions_is_no_copy_of_itself(data: Path, made: Path, tmp_path: Path) -> None:
    where = copied(made, tmp_path / "cache")
    said = cut(grown(RECIPE, low=(128, 192, 256)), data, where)
    assert not any("same bytes" in line for line in said)
