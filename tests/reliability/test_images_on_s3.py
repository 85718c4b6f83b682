"""Images on S3 in every form give the views that a folder gives, through faults too; outages end in one message."""

import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from disturbed_runs import (
    FEW_RETRIES,
    RETRIES,
    Runner,
    contents,
    faults,
    require_one_message,
    weather,
)
from fault_proxy import Fault, FaultKind, FaultProxy
from image_forms import write_list, write_parquet, write_tar

from storage_schemas.objects.file_systems import file_system
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store

LIST = "tables/images/00000.parquet"
KINDS: tuple[FaultKind, ...] = ("500", "503", "slowdown", "reset", "cut", "stall", "slow", "lost")
"""Without flipped bits: images have no hash of ours, only TLS protects them."""


def as_folder(bodies: Mapping[str, bytes], root: Path) -> str:
    """Files in a folder."""
    for name, body in bodies.items():
        (root / name).write_bytes(body)
    return ""


def as_tars(bodies: Mapping[str, bytes], root: Path) -> str:
    """Two tars."""
    for number in range(2):
        write_tar(root / f"{number}.tar", dict(list(bodies.items())[number::2]))
    return ""


def as_pattern(bodies: Mapping[str, bytes], root: Path) -> str:
    """The same tars, beside other files."""
    (root / "notes.txt").write_bytes(b"x")
    as_tars(bodies, root)
    return "/*.tar"


def as_parquet(bodies: Mapping[str, bytes], root: Path) -> str:
    """A Parquet file of several row groups."""
    write_parquet(root / "train.parquet", [{"path": name, "bytes": body} for name, body in bodies.items()])
    return "/train.parquet"


def as_list(bodies: Mapping[str, bytes], root: Path) -> str:
    """A list beside its images, in another order."""
    as_folder(bodies, root)
    write_list(root / "list.txt", random.Random(0).sample(sorted(bodies), len(bodies)))
    return "/list.txt"


Form = Callable[[Mapping[str, bytes], Path], str]


@pytest.fixture
def put(images: Path, bucket: str, proxy: FaultProxy, tmp_path: Path) -> Callable[[Form], str]:
    """Puts the images on S3 in a form, and returns the value of DATA. The proxy counts requests from then on."""

    def put(form: Form) -> str:
        bodies = {path.name: path.read_bytes() for path in images.iterdir()}
        (tmp_path / "data").mkdir()
        named = form(bodies, tmp_path / "data")
        filesystem, root = file_system(f"{bucket}/data", RetryPolicy())
        for path in (tmp_path / "data").iterdir():
            filesystem.pipe_file(f"{root}/{path.name}", path.read_bytes())
        proxy.arm()
        return f"{bucket}/data{named}"

    return put


def without_list(held: Mapping[str, str]) -> dict[str, str]:
    """The objects of a cache, but for the URIs of its images."""
    return {name: hashed for name, hashed in held.items() if name != LIST}


@pytest.mark.parametrize("form", [as_folder, as_tars, as_pattern, as_parquet, as_list])
def test_every_form_gives_the_cache_that_a_folder_on_this_machine_gives(
    runner: Runner, put: Callable[[Form], str], form: Form, expected: dict[str, str], tmp_path: Path
) -> None:
    ended = runner.run("extract", str(tmp_path / "cache"), images=put(form), retries=RETRIES)
    assert ended.status == 0, ended.said
    assert without_list(contents(Store(uri=str(tmp_path / "cache")))) == without_list(expected)


def test_an_image_costs_one_request(
    runner: Runner, put: Callable[[Form], str], proxy: FaultProxy, images: Path, tmp_path: Path
) -> None:
    data = put(as_folder)
    assert runner.run("extract", str(tmp_path / "cache"), images=data, retries=RETRIES).status == 0
    named = sorted(line for line in proxy.requests if ".png" in line)
    bucket = data.removeprefix("s3:/")
    assert named == [f"GET {bucket}/{path.name}" for path in sorted(images.iterdir())]


@pytest.mark.parametrize("form", [as_folder, *(pytest.param(f, marks=pytest.mark.slow) for f in (as_tars, as_parquet))])
def test_images_are_cut_through_faults_of_every_kind(
    runner: Runner, put: Callable[[Form], str], proxy: FaultProxy, form: Form, expected: dict, tmp_path: Path
) -> None:
    data, where = put(form), str(tmp_path / "cache")
    seen = weather(runner, proxy, "extract", where, list(faults(range(1, 60, 2), KINDS)), images=data)
    assert seen.struck >= (12 if form is as_folder else 5)
    assert seen.runs == 1, "none of them stopped a run"
    assert without_list(contents(Store(uri=where))) == without_list(expected)


@pytest.mark.parametrize("number", [1, 6], ids=["listing", "reading"])
def test_an_outage_ends_a_run_in_one_message_and_the_next_goes_on(
    runner: Runner, put: Callable[[Form], str], proxy: FaultProxy, number: int, expected: dict, tmp_path: Path
) -> None:
    data, where = put(as_folder), str(tmp_path / "cache")
    proxy.arm(Fault(kind="503", first=number))
    began = time.monotonic()
    ended = runner.run("extract", where, images=data, retries=FEW_RETRIES)
    assert time.monotonic() - began < RetryPolicy().outage - 15, "its own rule for retries, not the usual one"
    require_one_message(ended)
    assert re.search(r"  s3://\S+: failed \d+ times in \d+ seconds, at last with HTTP 503", ended.said)
    assert "run the same command again when this is fixed: it resumes" in ended.said
    proxy.arm()
    again = runner.run("extract", where, images=data, retries=RETRIES)
    assert again.status == 0, again.said
    assert without_list(contents(Store(uri=where))) == without_list(expected)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("s3://no-such-bucket/images", "there is no such bucket (create it, or name another)"),
        ("s3://tests/no/such/images", "does not exist ("),
    ],
)
@pytest.mark.usefixtures("made_bucket")
def test_images_that_are_not_there_are_missed(runner: Runner, data: str, found: str, tmp_path: Path) -> None:
    ended = runner.run("extract", str(tmp_path / "cache"), images=data, retries=FEW_RETRIES)
    require_one_message(ended)
    assert f"  {data}: {found}" in ended.said


def test_an_image_that_is_gone_since_it_was_listed_is_named(
    runner: Runner, put: Callable[[Form], str], bucket: str, images: Path, tmp_path: Path
) -> None:
    put(as_folder)
    lines = [f"{bucket}/data/{path.name}" for path in images.iterdir()]
    data = write_list(tmp_path / "list.txt", [*lines, f"{bucket}/data/gone.png"])
    ended = runner.run("extract", str(tmp_path / "cache"), images=str(data), retries=RETRIES)
    require_one_message(ended)
    assert f"source image is missing:\n  {bucket}/data/gone.png: cannot be read: FileNotFoundError (" in ended.said
