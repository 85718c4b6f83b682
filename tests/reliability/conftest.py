"""An S3 server, a proxy that fails on purpose, and a fresh bucket for each test."""

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

sys.path.insert(0, str(Path(__file__).parent))

from fault_proxy import FaultProxy, fault_proxy
from swift_server import Server, swift_server

NUMBERS = itertools.count()


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
