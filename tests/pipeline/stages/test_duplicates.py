"""Images of equal bytes: told after cutting, and on request left out before anything is drawn of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from stage_runs import LOCAL, StageRun, contents, write_colours

from pipeline.__main__ import main
from pipeline.config import Recipe, ViewsConfig
from pipeline.views.sampling import draw_split
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError
from storage_schemas.objects.store import Store

KEEP = Recipe(
    name="copies",
    views=ViewsConfig(low=(128,), high=(256,), high_share=0.3, draws=2, heldout=0.5, tokens_per_shard=600),
)
DROP = replace(KEEP, views=replace(KEEP.views, duplicates="drop"))
COPIES = {"003-a.png": "003.png", "003-b.png": "003.png", "005.png": "000.png", "zero.png": "empty.png"}
"""Which is a copy of which: the first by key is kept."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images and copies of some."""
    folder = write_colours(tmp_path / "images", 12)
    (folder / "empty.png").touch()
    for copy, kept in COPIES.items():
        shutil.copyfile(folder / kept, folder / copy)
    # by key "003-a.png" comes before "003.png": the name that is kept is the first
    (folder / "003.png").rename(folder / "003-.png")
    return folder


KEPT = {copy: "003-.png" if kept == "003.png" else kept for copy, kept in COPIES.items()}


def cut(recipe: Recipe, data: Path | None, where: Path) -> list[str]:
    """Cut the views and return what was said."""
    said: list[str] = []
    run = replace(LOCAL, max_rejected=0.5)
    make_views(Cache(store=Store(uri=str(where))), recipe, [], str(data or ""), run, said.append)
    return said


def images_of(where: Path) -> dict[str, str | None]:
    """The image list: key, and whose copy it is."""
    table = pq.read_table(where / "tables/images/00000.parquet")
    return dict(zip(table["image"].to_pylist(), table["copy_of"].to_pylist(), strict=True))


def test_copies_are_counted_and_the_pairs_that_stand_in_both_splits(data: Path, tmp_path: Path) -> None:
    said = cut(KEEP, data, tmp_path / "cache")
    groups = [["000.png", "005.png"], ["003-.png", "003-a.png", "003-b.png"]]
    splits = [[draw_split(key, KEEP.views) for key in group] for group in groups]
    pairs = sum(group.count("train") * group.count("heldout") for group in splits)
    assert pairs > 0
    assert said[-1] == (
        "views: 5 images have the same bytes as another image (000.png = 005.png, 003-.png = 003-a.png = 003-b.png); "
        f"in {pairs} pairs one image is in train and the other in heldout (in a new cache, --views.duplicates drop "
        "leaves copies out)"
    )
    assert set(images_of(tmp_path / "cache").values()) == {None}


def test_where_no_two_are_equal_nothing_is_said(tmp_path: Path) -> None:
    said = cut(KEEP, write_colours(tmp_path / "images", 5), tmp_path / "cache")
    assert not any("same bytes" in line for line in said)


def test_copies_that_are_left_out_are_as_if_they_were_not_there(data: Path, tmp_path: Path) -> None:
    said = cut(DROP, data, tmp_path / "with")
    assert said[:2] == [
        "views: reading 16 images to find copies",
        "views: 4 copies left out (003-a.png = 003-.png, 003-b.png = 003-.png, 005.png = 000.png, and 1 more)",
    ]
    assert not any("same bytes" in line for line in said)
    listed = images_of(tmp_path / "with")
    assert listed == dict.fromkeys(sorted(listed)) | KEPT
    for copy in KEPT:
        (data / copy).unlink()
    cut(DROP, data, tmp_path / "without")
    with_them, without = contents(tmp_path / "with"), contents(tmp_path / "without")
    assert with_them.pop("tables/images/00000.parquet") != without.pop("tables/images/00000.parquet")
    assert with_them == without


def test_a_run_that_is_taken_up_again_does_not_read_the_images_again(data: Path, tmp_path: Path) -> None:
    where = tmp_path / "cache"
    cut(DROP, data, where)
    before = contents(where)
    for name in ("tables/shards/views/low-128/00000.parquet", "tables/views/low-128/00000.parquet"):
        (where / name).unlink()
    said = cut(DROP, data, where)
    assert not any("reading" in line for line in said)
    assert contents(where) == before
    # where the list is gone, they are read again
    for name in ("tables/shards/views/low-128/00000.parquet", "tables/images/00000.parquet"):
        (where / name).unlink()
    assert cut(DROP, data, where)[0] == "views: reading 16 images to find copies"
    assert contents(where) == before
    assert cut(DROP, None, where)[0].startswith("views: complete, nothing to do")


def test_an_image_that_became_a_copy_since_is_refused(data: Path, tmp_path: Path) -> None:
    where = tmp_path / "cache"
    cut(DROP, data, where)
    (where / "tables/shards/views/low-128/00000.parquet").unlink()
    (where / "tables/images/00000.parquet").unlink()
    shutil.copyfile(data / "001.png", data / "002.png")
    with pytest.raises(IdentityError, match=r"images\.count: the cache has 12, this run has 11"):
        cut(DROP, data, where)


def test_a_cache_without_copies_is_whole_to_verify(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(DROP, data, tmp_path / "cache")
    assert main(["verify", "--cache", str(tmp_path / "cache"), "--run.executor", "local"]) == 0
    assert capsys.readouterr().err == ""
    run = StageRun(recipe=DROP, data=data, where=tmp_path / "cache", said=())
    assert {row["image"] for name in run.sets for row in run.table("views", name)}.isdisjoint(KEPT)


def test_a_copy_is_exported_with_the_image_that_was_kept_in_its_place_and_only_with_it(
    data: Path, tmp_path: Path
) -> None:
    cut(DROP, data, tmp_path / "cache")
    command = ["export", "--cache", str(tmp_path / "cache"), "--run.executor", "local", "--to"]
    kept = {key: KEPT.get(key, key) for key in images_of(tmp_path / "cache")}
    odd = [key for key in KEPT if draw_split(key, DROP.views) != draw_split(kept[key], DROP.views)]
    assert odd  # copies whose own key would be in the other split
    for split in ("train", "heldout"):
        assert main([*command, str(tmp_path / split), "--split", split]) == 0
        expected = {key: KEPT.get(key) for key in kept if draw_split(kept[key], DROP.views) == split}
        assert images_of(tmp_path / split) == expected
    (tmp_path / "keys.txt").write_text("003-.png\n001.png\n")
    assert main([*command, str(tmp_path / "some"), "--images", str(tmp_path / "keys.txt")]) == 0
    expected = {"001.png": None, "003-.png": None, "003-a.png": "003-.png", "003-b.png": "003-.png"}
    assert images_of(tmp_path / "some") == expected
