"""Servers that speak a part of S3, and buckets that anybody may read."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import final

import pytest

from pipeline.verify.gc import collect_garbage
from pipeline.verify.leftovers import stale_uploads
from pipeline.verify.options import GcOptions
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError, StorageError
from storage_schemas.objects.file_systems import forget_file_systems
from storage_schemas.objects.pending_uploads import pending_uploads
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store

BODY = b"a public object"
STORE = Store(uri="s3://open/cache", retries=RetryPolicy(outage=1.0))


@final
@dataclass
class Server:
    """What a server answers to a listing of uploads, and the headers of every request that it got."""

    status: int = 501
    code: str = "NotImplemented"
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with one object; no credentials are set."""
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.headers.append(dict(self.headers))
            uploads = "uploads" in self.path.partition("?")[2]
            error = f"<Error><Code>{told.code}</Code><Message>no</Message></Error>"
            body = error.encode() if uploads else BODY
            self.send_response(told.status if uploads else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_file_systems()
    yield told
    forget_file_systems()
    running.shutdown()
    running.server_close()


def test_a_public_bucket_is_read_without_credentials_where_that_is_asked_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=r"there are no credentials \(set AWS_ACCESS_KEY_ID"):
        STORE.read("x")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    forget_file_systems()
    assert STORE.read("x") == BODY
    assert server.headers
    assert all("Authorization" not in headers for headers in server.headers)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "perhaps")
    forget_file_systems()
    with pytest.raises(SettingError, match="AWS_NO_SIGN_REQUEST: is 'perhaps'"):
        STORE.read("x")


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "NotImplemented"), (501, "")]
)
def test_a_server_that_does_not_list_uploads_is_told_from_one_without_uploads(
    server: Server, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    forget_file_systems()
    server.status, server.code = status, code
    assert pending_uploads(STORE) is None
    assert stale_uploads(Cache(store=STORE), hours=0) is None


def test_where_a_server_refuses_to_list_uploads_the_refusal_is_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    forget_file_systems()
    server.status, server.code = 403, "AccessDenied"
    with pytest.raises(StorageError, match="access is refused: HTTP 403 AccessDenied"):
        pending_uploads(STORE)


def test_where_a_server_does_not_list_uploads_gc_says_so_and_goes_on(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = copied / f"tables/images/00000.parquet.{'0' * 32}.partial"
    left.write_bytes(b"12345")
    monkeypatch.setattr("pipeline.verify.gc.stale_uploads", lambda *_: None)
    said: list[str] = []
    options = GcOptions(cache=str(copied), delete=True)
    collect_garbage(Cache(store=Store(uri=str(copied))), options, said.append)
    assert said[0].startswith("gc: this server does not list unfinished uploads")
    assert said[-1] == "gc: 1 objects, 5 B, deleted"
    assert not left.exists()
