"""An S3 server, a proxy that fails on purpose, and a fresh bucket for each test."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from s3fs import S3FileSystem

sys.path.insert(0, str(Path(__file__).parent))

from disturbed_runs import HERE, RETRIES, Runner, contents
from fault_proxy import FaultProxy, fault_proxy
from swift_server import Server, swift_server

from storage_schemas.objects.store import Store

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running S3 server."""
    with swift_server(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def session_proxy(swift: Server) -> Iterator[FaultProxy]:
    """A proxy in front of it."""
    with fault_proxy(swift.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def made_bucket(session_proxy: FaultProxy, swift: Server) -> str:
    """The name of a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        set_variables(patch, swift, session_proxy)
        S3FileSystem(use_listings_cache=False).call_s3("create_bucket", Bucket="tests")
    return "tests"


@pytest.fixture
def proxy(session_proxy: FaultProxy, swift: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The proxy, without faults; the usual AWS variables lead to the server through it."""
    set_variables(monkeypatch, swift, session_proxy)
    session_proxy.arm()
    yield session_proxy
    session_proxy.arm()


@pytest.fixture
def bucket(proxy: FaultProxy, made_bucket: str) -> str:  # noqa: ARG001 (the variables are set)
    """The URI of an empty place in a bucket."""
    return f"s3://{made_bucket}/{next(NUMBERS)}"


def set_variables(patch: pytest.MonkeyPatch, swift: Server, proxy: FaultProxy) -> None:
    """Set the usual AWS variables, and no others."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    for name, value in swift.variables(proxy.endpoint).items():
        patch.setenv(name, value)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of smooth seeded colours, no two of one size."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((150 + 4 * number, 110 + 5 * number), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:02d}.png", compress_level=1)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def runner(images: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Carries out small runs; those on S3 go through the proxy."""
    swift, proxy = request.getfixturevalue("swift"), request.getfixturevalue("session_proxy")
    request.getfixturevalue("made_bucket")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = kept | swift.variables(proxy.endpoint) | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    said = tmp_path_factory.mktemp("runner") / "stderr"
    with (
        said.open("w") as log,
        subprocess.Popen(
            [sys.executable, HERE / "small_runs.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        yield Runner(process, images)
        process.stdin.close()


@pytest.fixture(scope="session")
def undisturbed(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run in a folder: the cache, and a student beside it."""
    root = tmp_path_factory.mktemp("undisturbed")
    for step in ("extract", "train"):
        ended = runner.run(step, str(root / "cache"), folder=str(root / "run"))
        assert ended.status == 0, ended.said
    return root


@pytest.fixture(scope="session")
def expected(undisturbed: Path) -> dict[str, str]:
    """The XXH3 of the objects that every cache of these tests must have at the end."""
    return contents(Store(uri=str(undisturbed / "cache")))


@pytest.fixture(scope="session")
def cached(runner: Runner, session_proxy: FaultProxy, made_bucket: str) -> tuple[str, list[str]]:
    """A cache on S3 that was made without faults, and the requests that this took."""
    session_proxy.arm()
    ended = runner.run("extract", f"s3://{made_bucket}/cached", retries=RETRIES)
    assert ended.status == 0, ended.said
    return f"s3://{made_bucket}/cached", list(session_proxy.requests)
