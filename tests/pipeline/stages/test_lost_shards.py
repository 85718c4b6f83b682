"""An array shard that is lost or cut is found by the next command, by its size; what the command advises mends it."""

import re
from pathlib import Path

import pytest
from stage_runs import contents, write_colours

from pipeline.__main__ import main

SIZES = "--views.low 128 --views.high --views.high-share 0 --views.canvas-tokens 0 --views.tokens-per-shard 640"
TEACHER = ["--teacher", "teachers.quarter_mean:QuarterMeanFixed", "--calibration.tokens-per-channel", "5"]
LOST = (
    "views/low-128/pixels",
    "teachers/quarter-mean-fixed/low-128/spatial",
    "teachers/quarter-mean-fixed/low-128/summary",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images."""
    return write_colours(tmp_path_factory.mktemp("lost") / "images", 20)


@pytest.mark.parametrize("array", LOST)
@pytest.mark.parametrize("cut", [False, True], ids=["lost", "cut"])
def test_a_shard_that_is_lost_is_found_by_its_size_and_the_advice_mends_it(
    array: str, cut: bool, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    common = ["--data", str(images), "--cache", str(cache), *SIZES.split(), "--run.executor", "local"]
    extract, views = ["extract", *TEACHER, *common], ["views", *common]
    assert main(extract) == 0
    before = contents(cache)
    [shard] = (path for path in (cache / "features.zarr" / array / "c" / "1").rglob("*") if path.is_file())
    body = shard.read_bytes()
    shard.unlink()
    if cut:
        shard.write_bytes(body[:-1])
    capsys.readouterr()
    assert main(extract) == 2
    message = capsys.readouterr().err
    found = f"has {len(body) - 1} bytes, its commit record says {len(body)}" if cut else "is missing, and its commit"
    assert f"  {shard.relative_to(cache)}: {found}" in message
    record = re.search(r"delete (tables/shards/\S+\.parquet); then `make ", message)
    assert record is not None
    if array.startswith("views"):
        assert main(views) == 2
        assert str(shard.relative_to(cache)) in capsys.readouterr().err
    (cache / record[1]).unlink()
    shard.unlink(missing_ok=True)
    assert main(views) == main(extract) == 0
    assert contents(cache) == before


def test_a_run_that_goes_on_finds_a_lost_shard_before_it_computes(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    common = ["--data", str(images), "--cache", str(cache), *SIZES.split(), "--run.executor", "local"]
    extract = ["extract", *TEACHER, *common]
    assert main(extract) == 0
    (cache / "tables/shards/teachers/quarter-mean-fixed/low-128/00001.parquet").unlink()
    [shard] = (path for path in (cache / f"features.zarr/{LOST[1]}/c/0").rglob("*") if path.is_file())
    shard.unlink()
    capsys.readouterr()
    assert main(extract) == 2
    assert f"{shard.relative_to(cache)}: is missing" in capsys.readouterr().err
    assert not (cache / "tables/shards/teachers/quarter-mean-fixed/low-128/00001.parquet").exists()
