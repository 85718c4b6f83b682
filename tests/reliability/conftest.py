"""An S3 server, a proxy that fails on purpose, and a fresh bucket for each test."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from PIL import Image
from s3fs import S3FileSystem

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from fault_proxy import FaultProxy, fault_proxy  # noqa: E402
from swift_server import Server, swift_server  # noqa: E402

NUMBERS = itertools.count()


@final
@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    status: int
    """0: complete; 2: refused in one message; anything else is a fault of ours."""
    said: str
    """What it said on standard error."""


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running S3 server."""
    with swift_server(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def session_proxy(swift: Server) -> Iterator[FaultProxy]:
    """A proxy before it."""
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
    """The proxy, at peace; the usual AWS variables lead to the server through it."""
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


@final
class Runner:
    """Carries small runs out in processes of their own."""

    def __init__(self, process: subprocess.Popen, images: Path) -> None:
        self._process, self._images = process, images

    def run(self, step: str, cache: str, **settings: Any) -> Ended:
        """Carry one out, and return how it ended."""
        run = {"step": step, "cache": cache, "images": str(self._images)} | settings
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(run) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


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
    """What carries out small runs; those on S3 go through the proxy."""
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
