"""Commands with nothing to do read each object of a cache once: on S3 every read is a request."""

from pathlib import Path

import pytest
from counting_store import Requests, counted
from stage_runs import write_colours

from pipeline.__main__ import main
from storage_schemas.cache import Cache
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.objects.store import Store
from trainer.data.source import open_source

SETTINGS = ["--views.draws", "1", "--views.tokens-per-shard", "600", "--run.executor", "local"]
TEACHERS = {
    "quarter-mean": "teachers.quarter_mean:QuarterMean",
    "quarter-mean-fixed": "teachers.quarter_mean:QuarterMeanFixed",
}
MANIFESTS = 2
"""Those of the cache and of its views."""
PHI_S = 1 + 2 * 3
"""Its group, and metadata and chunk of three arrays."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache of three view sets, with two teachers."""
    root = tmp_path_factory.mktemp("requests")
    images = write_colours(root / "images", 20)
    for source in TEACHERS.values():
        command = ["extract", "--data", str(images), "--cache", str(root / "cache"), "--teacher", source]
        assert main([*command, *SETTINGS]) == 0
    assert main(["stats", "--cache", str(root / "cache"), "--run.executor", "local"]) == 0
    return root / "cache"


@pytest.fixture(scope="module")
def views(cache: Path) -> ViewsManifest:
    """The manifest of its views."""
    manifest = Cache(store=Store(uri=str(cache))).views_manifest()
    assert manifest is not None
    assert len(manifest.sets) == 3
    return manifest


@pytest.fixture(scope="module")
def shards(views: ViewsManifest) -> int:
    """Shards of all view sets: each has a commit record for the canvases, and one for each teacher's features."""
    return sum(shape.grid.shards for shape in views.sets.values())


@pytest.fixture(scope="module")
def stats_objects(views: ViewsManifest) -> int:
    """Objects of one teacher's statistics that are shown: the group; four arrays of each set and of all sets together,
    and three of summaries, each of them metadata and a chunk.
    """
    return 1 + 2 * (4 * (len(views.sets) + 1) + 3)


def idle(*command: str) -> Requests:
    """Run a command that has nothing to do, and return its requests."""
    with counted() as requests:
        assert main([*command, "--run.executor", "local"]) == 0
    print(f"\nidle {command[0]}: {requests}")
    assert requests.repeated == {}
    return requests


@pytest.mark.parametrize("teacher", TEACHERS)
def test_an_idle_extract_reads_what_it_needs_once(
    cache: Path, views: ViewsManifest, shards: int, teacher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["extract", "--cache", f"counted://{cache}", "--teacher", TEACHERS[teacher], *SETTINGS]
    requests = idle(*command)
    assert f"extract {teacher}: complete, nothing to do (20 views, " in capsys.readouterr().out
    assert len(requests.reads) == MANIFESTS + 1 + PHI_S + 2 * shards
    arrays = [f"views/{view_set.name}/pixels" for view_set in views.sets]
    arrays += [
        f"teachers/{teacher}/{view_set.name}/{name}" for view_set in views.sets for name in ("spatial", "summary")
    ]
    assert requests.listings == [
        *(
            f"{cache}/tables/{log}/{folder}"
            for folder in (f"teachers/{teacher}", "views")
            for log in ("heads", "shards")
        ),
        *(f"{cache}/features.zarr/{array}/c" for array in arrays),  # each gives the sizes of all shards
    ]
    assert requests.checks == []


def test_an_idle_stats_reads_what_it_needs_once(cache: Path, shards: int, stats_objects: int) -> None:
    requests = idle("stats", "--cache", f"counted://{cache}", "--no-sizes")
    assert len(requests.reads) == MANIFESTS + len(TEACHERS) * (1 + PHI_S + stats_objects + shards)
    assert requests.listings == [
        f"{cache}/features.zarr/teachers",
        *(f"{cache}/tables/{log}/teachers/{teacher}" for teacher in TEACHERS for log in ("heads", "shards")),
    ]
    assert len(requests.checks) == 1 + len(TEACHERS)


def test_the_start_of_training_reads_what_it_needs_once(
    cache: Path, views: ViewsManifest, shards: int, stats_objects: int
) -> None:
    with counted() as requests:
        open_source(Cache(store=Store(uri=f"counted://{cache}")))
    print(f"\nstart of train: {requests}")
    assert requests.repeated == {}
    # of every shard a record and a part of the table of views: so few shards are all looked at for held-out views
    of_shards = shards * 2
    of_arrays = len(views.sets) * len(TEACHERS)  # their metadata says how features are stored
    heads = len(views.sets) * (1 + len(TEACHERS))  # of commit logs: none is there, for no log was sealed
    assert (
        len(requests.reads) == MANIFESTS + len(TEACHERS) * (1 + PHI_S + stats_objects) + of_shards + of_arrays + heads
    )
    assert len(requests.listings) == 1 + len(views.sets) * (1 + len(TEACHERS))
    assert len(requests.checks) == 1 + len(TEACHERS)
