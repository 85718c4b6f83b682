"""File systems that hold images: concurrent requests, and files that are read at random positions."""

import asyncio
import io
from collections.abc import Iterator
from typing import Any, ClassVar, final

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem
from hypothesis import given
from hypothesis import strategies as st

from pipeline.images.file_system import CONCURRENT_REQUESTS, source_of
from pipeline.images.reader import ImageReader, range_locator
from storage_schemas.format.errors import MissingError, SettingError
from storage_schemas.objects.retry_policy import RetryPolicy

BODY = bytes(range(256)) * 4
QUICK = RetryPolicy(outage=0.5, first_wait=0.01)


@final
class FarAway(AsyncFileSystem):
    """A store that answers no request before `awaited` requests are waiting."""

    protocol = "faraway"
    cachable = False
    awaited: ClassVar[int] = 1
    asked: ClassVar[list[str]] = []
    waiting: ClassVar[list[asyncio.Event]] = []

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        self.asked.append(path)
        enough = asyncio.Event()
        self.waiting.append(enough)
        if len(self.waiting) >= self.awaited:
            for answered in self.waiting:
                answered.set()
            self.waiting.clear()
        await asyncio.wait_for(enough.wait(), 10)
        if path.startswith("gone"):
            raise FileNotFoundError(path)
        return (f"{path}:".encode() + BODY)[start:end]

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": len(f"{path}:") + len(BODY), "type": "file"}


@final
class OnAHost(AbstractFileSystem):
    """A file system on a host that its URIs name, like SFTP."""

    protocol = "onahost"

    def __init__(self, host: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.host = host

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("onahost://").partition("/")[2]

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        return {"host": path.removeprefix("onahost://").partition("/")[0]}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return f"{self.host} {path}".encode()[start:end]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register both with fsspec, and clear what they recorded."""
    fsspec.register_implementation("faraway", FarAway, clobber=True)
    fsspec.register_implementation("onahost", OnAHost, clobber=True)
    FarAway.awaited = 1
    FarAway.asked.clear()
    yield
    FarAway.waiting.clear()


def test_images_behind_a_network_are_requested_concurrently_and_come_in_order() -> None:
    FarAway.awaited = CONCURRENT_REQUESTS
    named = [f"faraway://{number}" for number in range(4 * CONCURRENT_REQUESTS)]
    assert [body.partition(b":")[0] for body in ImageReader(retries=QUICK).read_all(named)] == [
        uri.removeprefix("faraway://").encode() for uri in named
    ]


def test_no_more_images_are_requested_than_are_held() -> None:
    bodies = ImageReader(retries=QUICK).read_all([f"faraway://{number}" for number in range(4 * CONCURRENT_REQUESTS)])
    next(bodies)
    assert len(FarAway.asked) <= CONCURRENT_REQUESTS + 1
    bodies.close()  # type: ignore[attr-defined]


def test_an_image_that_is_missing_is_named_when_its_turn_comes() -> None:
    bodies = ImageReader(retries=QUICK).read_all(["faraway://0", "faraway://gone", "faraway://2"])
    assert next(bodies).startswith(b"0:")
    with pytest.raises(MissingError, match="faraway://gone: cannot be read: FileNotFoundError"):
        next(bodies)


def test_a_file_system_that_is_not_installed_is_named() -> None:
    fsspec.register_implementation("absent", "no_such_module.FileSystem", clobber=True, errtxt="Please install absent")
    with pytest.raises(SettingError) as caught:
        ImageReader().read("absent://a")
    assert str(caught.value) == (
        "file system cannot be used:\n  absent://a: needs a package that is not installed: Please install absent "
        "(install it, then run the same command again)"
    )


def test_local_images_are_read_in_the_thread_of_the_caller(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("pipeline.images.reader.ahead")
    (tmp_path / "a").write_bytes(b"abc")
    assert list(ImageReader().read_all([f"file://{tmp_path}/a", range_locator(f"file://{tmp_path}/a", 1, 3)])) == [
        b"abc",
        b"bc",
    ]


def test_a_uri_decides_which_host_is_asked() -> None:
    reader = ImageReader()
    named = ["onahost://one/a #b", "onahost://two/a::b", "onahost://one/c?d"]
    assert list(reader.read_all(named)) == [b"one /a #b", b"two /a::b", b"one /c?d"]
    first, again = (source_of(uri, RetryPolicy())[0] for uri in ("onahost://one/a", "onahost://one/b"))
    assert first.filesystem is again.filesystem


@given(
    steps=st.lists(st.tuples(st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]), st.integers(-300, 1200))),
    sizes=st.lists(st.integers(0, 1200), min_size=1),
)
def test_a_file_behind_a_network_reads_as_one_in_memory(steps: list[tuple[int, int]], sizes: list[int]) -> None:
    source, path = source_of("faraway://", RetryPolicy())
    held = io.BytesIO(b":" + BODY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.images.file_system.BLOCK_BYTES", 64)
        file = source.open(path)
    with file:
        for (whence, offset), size in zip(steps, sizes, strict=False):
            to = {io.SEEK_SET: 0, io.SEEK_CUR: held.tell(), io.SEEK_END: len(BODY) + 1}[whence] + offset
            if to >= 0:
                assert file.seek(offset, whence) == held.seek(offset, whence)
            assert file.read(size) == held.read(size)
            assert file.tell() == held.tell()
