"""Refusals, as a user meets them: status 2, one message that names the place and the mend, and nothing lost."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import huggingface_hub.constants
import pytest
import zarr
from PIL import Image
from stage_runs import contents, write_colours

import trainer.__main__ as trainer
from pipeline.__main__ import main
from pipeline.images.listing import FORMS
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store

SMALL = ["--views.draws", "1", "--views.tokens-per-shard", "600", "--run.executor", "local"]
ONE_SHARD = ["--views.low", "128", "--views.high-share", "0", "--views.tokens-per-shard", "32768"]
QUARTERS = "teachers.quarter_mean:QuarterMean"
FIXED = "teachers.quarter_mean:QuarterMeanFixed"

Refused = Callable[..., list[str]]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused, and return its message line by line."""

    def run(*arguments: str) -> list[str]:
        status = main(arguments)
        captured = capsys.readouterr()
        assert status == 2
        assert "error" not in captured.out
        assert captured.err.startswith("error: ")
        assert "Traceback" not in captured.err
        return captured.err.removeprefix("error: ").splitlines()

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty images."""
    return write_colours(tmp_path / "images", 20)


@pytest.fixture
def views_of(data: Path) -> Callable[[Path], list[str]]:
    """The command that cuts their views into a cache."""
    return lambda cache: ["views", "--data", str(data), "--cache", str(cache), *SMALL]


@pytest.fixture
def extract_of(data: Path) -> Callable[[Path, str], list[str]]:
    """The command that runs a teacher over them."""
    return lambda cache, teacher: ["extract", "--data", str(data), "--cache", str(cache), "--teacher", teacher, *SMALL]


def views_in(cache: Path) -> int:
    """Committed views."""
    manifest = Cache(store=Store(uri=str(cache))).views_manifest()
    assert manifest is not None
    return sum(
        parts[0].rows
        for view_set in manifest.sets
        for parts in Cache(store=Store(uri=str(cache))).records(f"views/{view_set.name}", manifest.digest).values()
    )


# DATA


@pytest.mark.parametrize("command", [["views"], ["extract", "--teacher", QUARTERS]])
def test_images_that_are_not_named_are_asked_for(refused: Refused, tmp_path: Path, command: Sequence[str]) -> None:
    assert refused(*command, "--cache", str(tmp_path / "cache"), *SMALL) == [
        "DATA is missing:",
        f"  --data: is not given ({FORMS})",
    ]
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_is_not_there_is_named(refused: Refused, tmp_path: Path) -> None:
    where = f"{tmp_path}/none"
    assert refused("views", "--data", where, "--cache", f"{tmp_path}/cache", *SMALL) == [
        "DATA is missing:",
        f"  {where}: does not exist ({FORMS})",
    ]


def test_an_empty_folder_is_named(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    [_, found] = refused("views", "--data", f"{tmp_path}/images", "--cache", f"{tmp_path}/cache", *SMALL)
    assert found.startswith(f"  {tmp_path}/images: contains no image (image names end in .")


def test_images_that_cannot_be_cut_are_named_and_the_others_of_the_shard_are_cut(
    refused: Refused, data: Path, tmp_path: Path, views_of: Callable[[Path], list[str]]
) -> None:
    cache = tmp_path / "cache"
    (data / "broken.png").write_text("no image at all")
    (data / "empty.jpg").touch()
    expected = [
        "image list cannot be used:",
        "  DATA: broken.png: not an image (none of AVIF, BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP)",
        "  DATA: empty.jpg: empty (zero bytes)",
        f"  what to do: 2 of 22 views were rejected; `make inspect CACHE={cache} ARGS=--rejected` lists the images (to "
        "go on without these images: --run.max-rejected 0.091; to include them: repair them, and point CACHE at a new "
        "place)",
    ]
    assert refused(*views_of(cache), *ONE_SHARD) == expected
    assert views_in(cache) == 20
    before = contents(cache)
    assert refused(*views_of(cache), *ONE_SHARD) == expected, "and asked again"
    assert contents(cache) == before


def test_the_share_that_a_refusal_names_lets_the_run_go_on(
    refused: Refused, data: Path, tmp_path: Path, views_of: Callable, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    (data / "broken.png").write_text("no image at all")
    refused(*views_of(cache))
    assert refused(*extract_of(cache, QUARTERS))[0] == "image list cannot be used:", "extract asks as well"
    assert main([*extract_of(cache, QUARTERS), "--run.max-rejected", "0.048"]) == 0
    assert main([*views_of(cache), "--run.max-rejected", "0.048"]) == 0
    assert refused(*views_of(cache), "--run.max-rejected", "0.047")


def test_a_share_that_was_given_once_holds_for_every_later_command(
    refused: Refused, data: Path, tmp_path: Path, views_of: Callable, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    (data / "broken.png").write_text("no image at all")
    assert main([*views_of(cache), "--run.max-rejected", "0.05"]) == 0
    before = contents(cache)
    assert main(views_of(cache)) == main(extract_of(cache, QUARTERS)) == 0
    assert {name: contents(cache)[name] for name in before} == before
    assert refused(*views_of(cache), "--run.max-rejected", "0.01"), "a share that is given again counts"
    assert main(views_of(cache)) == 0
    accepted = cache / "accepted" / "rejected.json"
    accepted.write_bytes(accepted.read_bytes().replace(b"0.05", b"0.95"))
    lines = refused(*views_of(cache))
    assert lines[0] == "attributes is damaged:"
    accepted.write_text("{")
    assert (
        "accepted/rejected.json: cannot be read (delete it, and give --run.max-rejected once more)"
        in refused(*views_of(cache))[1]
    )
    accepted.unlink()
    assert refused(*views_of(cache)), "and so does none, where none was given"


def test_a_share_is_recorded_only_where_it_makes_a_difference(tmp_path: Path, views_of: Callable) -> None:
    assert main([*views_of(tmp_path / "cache"), "--run.max-rejected", "0.5"]) == 0
    assert not (tmp_path / "cache" / "accepted").exists()


def test_after_rejections_every_stage_names_the_command_that_lists_them(
    data: Path,
    tmp_path: Path,
    views_of: Callable,
    extract_of: Callable,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "cache"
    (data / "broken.png").write_text("no image at all")
    (data / "empty.png").touch()
    stats, inspect = ["stats", "--cache", str(cache), "--run.executor", "local"], ["inspect", "--cache", str(cache)]
    line = f"2 views are rejected, since their images are unusable; `make inspect CACHE={cache} ARGS=--rejected` lists"
    for command in ([*views_of(cache), "--run.max-rejected", "0.2"], views_of(cache), extract_of(cache, QUARTERS)):
        assert main(command) == 0
        assert capsys.readouterr().out.count(line) == 1, command
    for command in (extract_of(cache, QUARTERS), stats, stats, inspect, ["verify", "--cache", str(cache)]):
        assert main(command) == 0
        assert capsys.readouterr().out.count(line) == 1, command
    monkeypatch.setattr("trainer.run.fit.fit", lambda *_, **__: None)
    assert trainer.main(["train", "--cache", str(cache), "--runs", str(tmp_path / "runs"), "--student", "tiny"]) == 0
    assert capsys.readouterr().out.count(line) == 1, "train"
    assert main([*inspect, "--rejected"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "broken.png: not an image (none of AVIF, BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP), 1 view",
        "empty.png: empty (zero bytes), 1 view",
        f"{cache}: 2 images rejected, 2 views",
    ]
    assert main([*inspect, "--rejected", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [(image["image"], image["reason"], image["views"]) for image in facts["images"]] == [
        ("broken.png", "not an image", 1),
        ("empty.png", "empty", 1),
    ]
    assert main([*inspect, "--rejected", "--view", "low-128/0"]) == 2


def test_of_many_rejected_images_ten_are_named(
    refused: Refused, data: Path, tmp_path: Path, views_of: Callable
) -> None:
    for number in range(13):
        (data / f"empty-{number:02d}.png").touch()
    lines = refused(*views_of(tmp_path / "cache"), *ONE_SHARD)
    assert [line for line in lines if "zero bytes" in line] == [
        f"  DATA: empty-{number:02d}.png: empty (zero bytes)" for number in range(10)
    ]
    assert "  …: and 3 more" in lines


def test_a_run_ends_early_once_too_many_are_certain_and_goes_on_with_a_larger_share(
    refused: Refused, data: Path, tmp_path: Path, views_of: Callable
) -> None:
    cache, undisturbed = tmp_path / "cache", tmp_path / "undisturbed"
    for number in range(0, 20, 2):
        (data / f"{number:03d}.png").write_bytes(b"")
    command = [*views_of(cache), "--run.max-rejected"]
    *named, advice = refused(*command, "0.05")[1:]
    assert 0 < views_in(cache) < 10, "of the ten good ones"
    found = re.fullmatch(
        r"  what to do: (\d+) of (\d+) views were rejected; `make inspect CACHE=\S+ ARGS=--rejected` lists the "
        r"images\. The run stopped early: at most 0\.05 of all 20 views may be rejected \(to go on without these "
        r"images: --run.max-rejected 0\.\d+; to include them: repair them, and point CACHE at a new place\)",
        advice,
    )
    assert found is not None
    rejected, met = map(int, found.groups())
    assert 1 < rejected == len(named) < met < 20
    before = contents(cache)
    assert refused(*command, "0.05")[1:] == [*named, advice]
    assert contents(cache) == before, "nothing more is cut under the same share"
    assert main([*command, "0.5"]) == main([*views_of(undisturbed), "--run.max-rejected", "0.5"]) == 0
    assert contents(cache) == contents(undisturbed)
    assert refused(*command, "0.49")[-1].startswith("  what to do: 10 of 20 views were rejected; ")


def test_a_file_that_cannot_be_read_ends_the_run_and_is_not_rejected(
    refused: Refused, data: Path, tmp_path: Path, views_of: Callable
) -> None:
    cache, names = tmp_path / "cache", tmp_path / "list.txt"
    names.write_text("".join(f"{path}\n" for path in [*sorted(data.iterdir()), data / "gone.png"]))
    command = [str(names) if argument == str(data) else argument for argument in views_of(cache)]
    assert str(names) in command
    assert refused(*command)[0] == "source image is missing:"
    Image.new("RGB", (150, 120), "red").save(data / "gone.png")
    assert main(command) == 0
    assert views_in(cache) == 21


def test_another_image_list_is_refused_with_both_counts(
    refused: Refused, data: Path, tmp_path: Path, views_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert main(views_of(cache)) == 0
    before = contents(cache)
    (data / "000.png").rename(data / "new name.png")
    [subject, digests, fix] = refused(*views_of(cache))
    assert subject == f"image list of {data} does not match what is already there:"
    assert digests.startswith('  images.keys_sha256: the cache has "')
    assert fix == "  what to do: set DATA to the images that this cache was made from, or point CACHE at a new place"
    (data / "more.png").symlink_to(data / "001.png")
    assert "  images.count: the cache has 20, this run has 21" in refused(*views_of(cache))
    assert contents(cache) == before


def test_a_changed_image_is_refused_where_only_details_are_missing(
    refused: Refused, data: Path, tmp_path: Path, views_of: Callable, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert main(views_of(cache)) == 0
    before = contents(cache)
    image = Image.open(data / "007.png").rotate(180)
    image.save(data / "007.png")
    [subject, place, *_] = refused(*extract_of(cache, FIXED))
    assert subject == "view shard does not match what is already there:"
    assert place.startswith("  tables/views/")
    assert place.endswith(
        "its canvases were cut from other images than those that are there now (restore the images as they were, or "
        "make a new cache)"
    )
    after = contents(cache)
    assert {name: after[name] for name in before} == before


# CACHE


@pytest.mark.parametrize("command", [["views"], ["extract", "--teacher", "dinov3"], ["stats"]])
def test_a_cache_that_is_not_named_is_asked_for(refused: Refused, command: Sequence[str]) -> None:
    assert refused(*command) == ["CACHE cannot be used:", "  --cache: is not given (make … CACHE=…)"]


def test_the_cache_of_another_recipe_is_refused_with_both_names(
    refused: Refused, tmp_path: Path, views_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert main(views_of(cache)) == 0
    before = contents(cache)
    lines = refused(*views_of(cache), "--recipe", "small")
    assert lines[0] == "recipe small does not match what is already there:"
    assert '  recipe: the cache has "demo", this run has "small"' in lines
    assert lines[-1] == (
        "  what to do: use the recipe and settings that made this cache, or point CACHE at a new place"
    )
    assert contents(cache) == before


def test_other_settings_are_refused_with_both_values_each(
    refused: Refused, tmp_path: Path, views_of: Callable, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert main(views_of(cache)) == 0
    changed = ["--views.seed", "5", "--views.flip", "0.25"]
    expected = [
        "recipe demo does not match what is already there:",
        "  views.flip: the cache has 0.5, this run has 0.25",
        "  views.seed: the cache has 0, this run has 5",
        "  what to do: use the recipe and settings that made this cache, or point CACHE at a new place",
    ]
    assert refused(*views_of(cache), *changed) == expected
    assert refused(*extract_of(cache, QUARTERS), *changed) == expected


def test_features_of_other_settings_are_refused_with_both_values(
    refused: Refused, tmp_path: Path, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert main(extract_of(cache, QUARTERS)) == 0
    before = contents(cache)
    lines = refused(*extract_of(cache, QUARTERS), "--choice.encoding", "float32")
    assert lines[:2] == [
        "teacher quarter-mean does not match what is already there:",
        '  encoding: the cache has "float16", this run has "float32"',
    ]
    assert lines[-1] == "  what to do: use the settings that made these features, or give this teacher another name"
    assert contents(cache) == before


def test_features_begun_under_other_settings_are_refused_too(
    refused: Refused, tmp_path: Path, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert main(extract_of(cache, QUARTERS)) == 0
    for record in (cache / "tables" / "shards" / "teachers").rglob("00000.parquet"):
        record.unlink()
    before = contents(cache)
    batch = refused(*extract_of(cache, QUARTERS), "--choice.batch", "3")
    assert "  batch: the cache has 16, this run has 3" in batch
    codec = refused(*extract_of(cache, QUARTERS), "--choice.compression", "zstd")
    assert '  compression: the cache has "none", this run has "zstd"' in codec
    assert contents(cache) == before


def test_a_map_that_was_frozen_under_other_settings_is_refused_before_there_are_features(
    refused: Refused, tmp_path: Path, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert main(extract_of(cache, QUARTERS)) == 0
    shutil.rmtree(cache / "tables" / "shards" / "teachers")
    (cache / "features.zarr" / "teachers" / "quarter-mean" / "zarr.json").unlink()  # as if killed after calibration
    assert "  batch: the cache has 16, this run has 3" in refused(*extract_of(cache, QUARTERS), "--choice.batch", "3")
    assert main(extract_of(cache, QUARTERS)) == 0


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (
            "teachers/quarter-mean/phi_s",
            "is gone, and features were stored under it (put it back from a copy of the cache, or make a new cache)",
        ),
        ("teachers/quarter-mean", "does not record what computed the features below it (make a new cache)"),
    ],
)
def test_features_that_have_lost_what_they_were_stored_under_are_refused(
    refused: Refused, tmp_path: Path, extract_of: Callable, group: str, message: str
) -> None:
    cache = tmp_path / "cache"
    assert main(extract_of(cache, QUARTERS)) == 0
    (cache / "features.zarr" / group / "zarr.json").unlink()
    [_, found] = refused(*extract_of(cache, QUARTERS))
    assert found == f"  {group}: {message}"


def test_a_zarr_group_that_is_not_ours_is_left_alone(refused: Refused, tmp_path: Path, views_of: Callable) -> None:
    cache = tmp_path / "cache"
    zarr.create_group(cache / "features.zarr").create_array("theirs", shape=(3,), dtype="int8")[...] = 7
    before = contents(cache)
    assert refused(*views_of(cache)) == [
        "cache does not match what is already there:",
        f"  {cache}: holds a features.zarr that Stillhouse did not make (point CACHE at a new place)",
    ]
    assert contents(cache) == before


def test_a_file_in_the_place_of_the_cache_is_named(refused: Refused, tmp_path: Path, views_of: Callable) -> None:
    (tmp_path / "cache").touch()
    [subject, place] = refused(*views_of(tmp_path / "cache"))
    assert subject == "storage failed:"
    assert place.startswith(f"  {tmp_path}/cache")


# TEACHER


def test_a_teacher_that_is_not_named_is_asked_for(refused: Refused, tmp_path: Path) -> None:
    assert refused("extract", "--cache", str(tmp_path)) == [
        "TEACHER is missing:",
        "  --teacher: is not given (dinov3, siglip2, sam3, timm:<model.tag>, or module:Class)",
    ]


def test_an_unknown_teacher_is_answered_with_the_recipes(refused: Refused, tmp_path: Path) -> None:
    assert refused("extract", "--cache", str(tmp_path), "--teacher", "dinov2") == [
        "TEACHER cannot be used:",
        "  dinov2: recipe demo has no teacher 'dinov2' "
        "(it has dinov3, siglip2, sam3; or give timm:<model.tag> or module:Class)",
    ]


def test_an_unknown_model_is_answered_with_the_nearest(refused: Refused, tmp_path: Path, extract_of: Callable) -> None:
    [_, found] = refused(*extract_of(tmp_path / "cache", "dinov3"), "--choice.source", "dinov3-tinny")
    assert found.startswith("  source: no such teacher; did you mean dinov3-tiny ")
    assert not (tmp_path / "cache").exists()


def test_a_class_that_does_not_import_is_named(refused: Refused, tmp_path: Path) -> None:
    [subject, found] = refused("extract", "--cache", str(tmp_path), "--teacher", "no_such_module:Teacher")
    assert subject == "teacher 'no_such_module:Teacher' cannot be used:"
    assert found.startswith("  source: No module named 'no_such_module'")


def test_weights_that_are_nowhere_are_named_with_their_licence_and_where_to_get_them(
    refused: Refused, tmp_path: Path, extract_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cache = tmp_path / "cache"
    lines = refused(*extract_of(cache, "dinov3"), "--choice.source", "dinov3-s", "--choice.weights", "hub")
    assert lines[0].startswith("a copy of the weights of dinov3-s (")
    assert lines[0].endswith(") is missing:")
    assert lines[1].startswith("  https://huggingface.co/timm/vit_small_patch16_dinov3")
    assert ": not in the hub's cache on this machine, and the hub cannot be reached" in lines[1]
    assert "  licence: DINOv3 License" in lines
    assert lines[-1].startswith("  local copy: none was given (WEIGHTS=")
    assert views_in(cache) == 20, "the views are kept"
    assert not (cache / "features.zarr" / "teachers").exists()


def test_a_teacher_that_gives_nan_is_refused_before_anything_of_it_is_stored(
    refused: Refused, tmp_path: Path, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    lines = refused(*extract_of(cache, "odd_teachers:NotANumber"))
    assert lines == [
        "output of teacher 'not-a-number' breaks the storage contract:",
        "  spatial: NaN or infinity in image 2, 5 of the batch (try precision fp32)",
        "  views: rows 0 to 6 of views/low-128/pixels",
    ]
    assert not any("not-a-number" in name for name in contents(cache))


def test_a_teacher_that_says_the_same_of_everything_is_refused_before_anything_of_it_is_stored(
    refused: Refused, tmp_path: Path, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert refused(*extract_of(cache, "odd_teachers:Constant"))[1].startswith(
        "  spatial, channels 0, 1, 2, 3, 4, 5, 6, 7, …: a variance of zero in 12 of 12 channels over "
    )
    assert not any("constant" in name for name in contents(cache))


def test_a_teacher_with_channels_that_never_change_is_refused_with_their_numbers_and_the_views(
    refused: Refused, tmp_path: Path, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert refused(*extract_of(cache, "odd_teachers:DeadChannels"), *ONE_SHARD) == [
        "output of teacher 'dead-channels' breaks the storage contract:",
        "  spatial, channels 3, 7: a variance of zero in 2 of 12 channels over 1088 tokens (check its weights and its "
        "forward; nothing of it was stored)",
        "  views of low-128: 17 training views, the first of shards 0",
    ]
    assert not any("dead-channels" in name for name in contents(cache))


def test_too_few_tokens_to_fit_phi_s_on_are_refused(refused: Refused, tmp_path: Path, extract_of: Callable) -> None:
    cache = tmp_path / "cache"
    arguments = [*extract_of(cache, QUARTERS), "--calibration.tokens-per-channel", "1000000"]
    [subject, found] = refused(*arguments)
    assert subject == "PHI-S calibration cannot be used:"
    assert " tokens for 12 channels, fewer than 1000000 for each (add images or draws, " in found
    assert not any("quarter-mean" in name for name in contents(cache))


def test_resolutions_that_a_teacher_cannot_see_are_all_named(
    refused: Refused, tmp_path: Path, extract_of: Callable
) -> None:
    assert refused(*extract_of(tmp_path / "cache", "odd_teachers:DirectFourteen")) == [
        "teacher direct-14 cannot be used:",
        "  high-256: 256 px is not a multiple of the patch of direct-14, 14 px",
        "  low-128: 128 px is not a multiple of the patch of direct-14, 14 px",
        "  low-192: 192 px is not a multiple of the patch of direct-14, 14 px",
    ]


def test_windows_that_are_larger_than_a_canvas_are_named(
    refused: Refused, tmp_path: Path, extract_of: Callable
) -> None:
    arguments = [*extract_of(tmp_path / "cache", "odd_teachers:CanvasSixteen"), "--views.high", "512"]
    fix = "leave this resolution out, or give the teacher a larger canvas"
    assert refused(*arguments)[1] == f"  high-512: 32 tokens do not fit a canvas of 24 ({fix})"


def test_a_summary_of_many_views_at_once_is_refused(refused: Refused, tmp_path: Path, extract_of: Callable) -> None:
    assert refused(*extract_of(tmp_path / "cache", "odd_teachers:CanvasWithSummary")) == [
        "teacher canvas-with-summary cannot be used:",
        "  summary_dim: 12, but a summary of a mosaic belongs to no single view (declare None)",
    ]


# stats


def test_stats_of_nothing_are_refused(refused: Refused, tmp_path: Path, views_of: Callable) -> None:
    cache = tmp_path / "cache"
    assert refused("stats", "--cache", str(cache))[0] == "cache is missing:"
    assert main(views_of(cache)) == 0
    assert refused("stats", "--cache", str(cache)) == [
        "teacher is missing:",
        f"  {cache}: holds the features of none (run `make extract TEACHER=…`)",
    ]
    assert refused("stats", "--cache", str(cache), "--teacher", "dinov3") == [
        "teacher dinov3 is missing:",
        f"  {cache}: has no features (run `make extract TEACHER=dinov3`; it resumes)",
    ]


def test_stats_of_unfinished_features_are_refused_with_what_is_lacking(
    refused: Refused, tmp_path: Path, extract_of: Callable
) -> None:
    cache = tmp_path / "cache"
    assert main(extract_of(cache, QUARTERS)) == 0
    log = cache / "tables" / "shards" / "teachers" / "quarter-mean"
    for view_set in ("low-128", "low-192"):
        (log / view_set / "00000.parquet").unlink()
    shards = {view_set: len(list((log / view_set).iterdir())) + 1 for view_set in ("low-128", "low-192")}
    assert refused("stats", "--cache", str(cache), "--run.executor", "local") == [
        "teacher quarter-mean is missing:",
        *(
            f"  {view_set}: 1 of {count} shards are not committed (run `make extract TEACHER=quarter-mean`; it resumes)"
            for view_set, count in shards.items()
        ),
    ]


# the command line itself


def test_an_unknown_command_is_answered_with_those_there_are(refused: Refused) -> None:
    [subject, found] = refused("extrakt")
    assert subject == "command cannot be used:"
    assert found.startswith("  extrakt: is no command (there are plan, views, preview, extract, stats, ")


def test_an_unknown_recipe_is_answered_with_the_nearest(refused: Refused) -> None:
    expected = [
        "RECIPE cannot be used:",
        "  smal: no such recipe (did you mean small? there are demo, small, radio_v2_5, c_radio_v4, evaluation)",
    ]
    assert refused("views", "--recipe", "smal") == expected
    assert refused("extract", "--recipe=smal") == expected


def test_a_setting_that_cannot_work_is_refused_on_the_command_line(refused: Refused, tmp_path: Path) -> None:
    assert refused("views", "--cache", str(tmp_path), "--views.low", "100") == [
        "views settings cannot be used:",
        "  low: 100 px is not a multiple of the patch, 16 px",
    ]


def test_a_setting_that_there_is_not_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["views", "--view.low", "128"])
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (2, "")
    assert "--view.low" in captured.err


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "extract" in capsys.readouterr().out
    assert main(["--help"]) == 0


def test_the_process_ends_with_status_2_and_says_why_on_standard_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "views", "--cache", str(tmp_path / "cache"), "--data", "/none"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: DATA is missing:\n  /none: does not exist ({FORMS})\n"


@pytest.mark.parametrize("below", ["", "/cache", "/deep/cache"])
@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_a_link_that_leads_nowhere_is_named_at_once_as_a_cache(
    below: str, target: str, refused: Refused, views_of: Callable, extract_of: Callable, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / target)  # to itself, or to what is not there
    cache = Path(f"{link}{below}")
    there = ["--cache", str(cache)]
    fix = "(mount or make what it leads to, or remove the link)"
    began = time.monotonic()
    for command in (
        views_of(cache),
        extract_of(cache, QUARTERS),
        ["stats", *there, "--run.executor", "local"],
        ["inspect", *there],
        ["verify", *there, "--run.executor", "local"],
        ["gc", *there],
        ["export", *there, "--to", str(tmp_path / "to"), "--run.executor", "local"],
        ["plan", *there, *views_of(cache)[1:3]],
        ["preview", *there, "--sheet", str(tmp_path / "sheet.png")],
    ):
        assert refused(*command) == [
            "CACHE cannot be used:",
            f"  {link}: is a link to {tmp_path / target}, which does not exist {fix}",
        ]
    assert time.monotonic() - began < 20


def test_a_link_that_leads_to_a_folder_is_a_cache(views_of: Callable, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    assert main(views_of(tmp_path / "link" / "cache")) == main(views_of(tmp_path / "link" / "cache")) == 0
