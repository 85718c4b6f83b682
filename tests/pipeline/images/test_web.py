"""Images on the web: an address that is dead is one rejection among others, and not the end of the run."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from image_forms import write_list
from PIL import Image

from pipeline.config import Recipe, RunConfig, ViewsConfig
from pipeline.images.listing import SourceImage
from pipeline.images.reader import GONE, ImageReader
from pipeline.images.unusable import UnusableImageError
from pipeline.views.duplicates import ImageHasher
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError, StorageError
from storage_schemas.objects.file_systems import is_unknown_host
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store

QUICK = RetryPolicy(outage=0.3, first_wait=0.01)


def jpeg(seed: int) -> bytes:
    """A picture."""
    body = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((160, 120)).save(body, "JPEG")
    return body.getvalue()


class Server(BaseHTTPRequestHandler):
    """Answers `/<status>/<anything>` with that status, and an image where it is 200."""

    def do_GET(self) -> None:
        """Answer."""
        status = int(self.path.split("/")[1])
        body = jpeg(len(self.path)) if status == 200 else b"no"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The address of a web server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("status", sorted(GONE))
def test_an_image_that_a_web_server_does_not_give_is_rejected(web: str, status: int) -> None:
    with pytest.raises(UnusableImageError) as caught:
        ImageReader(retries=QUICK).read(f"{web}/{status}/a.jpg")
    assert (caught.value.reason, caught.value.detail) == ("gone", f"HTTP {status}")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_web_server_that_fails_ends_the_run(web: str, status: int) -> None:
    with pytest.raises(StorageError, match=f"HTTP {status}"):
        ImageReader(retries=QUICK).read(f"{web}/{status}/a.jpg")


def test_a_host_that_is_not_there_is_told_from_name_servers_that_are_not() -> None:
    key = aiohttp.client_reqrep.ConnectionKey("nowhere", 80, False, False, None, None, None)
    errors = {number: aiohttp.ClientConnectorDNSError(key, OSError(number, "x")) for number in (-2, -3)}
    assert {number: is_unknown_host(error) for number, error in errors.items()} == {-2: True, -3: False}
    assert not is_unknown_host(OSError(-2, "x"))


def cut(folder: Path, lines: list[str], share: float) -> list[dict[str, Any]]:
    """Cut the views of a list, and return what was rejected."""
    recipe = Recipe(name="web", views=ViewsConfig(low=(64,), high=(), canvas_tokens=0, heldout=0))
    cache = Cache(store=Store(uri=str(folder / "cache")))
    run = RunConfig(executor="local", max_rejected=share)
    make_views(cache, recipe, [], str(write_list(folder / "list.txt", lines)), run, [].append)
    manifest = cache.manifests([]).views
    assert manifest is not None
    parts = [
        cache.rejected(view_set, cache.records(f"views/{view_set.name}", manifest.digest)) for view_set in manifest.sets
    ]
    return [row for part in parts for row in part.to_pylist()]


def test_dead_addresses_are_rejected_within_the_share_that_is_allowed(web: str, tmp_path: Path) -> None:
    lines = [f"{web}/200/{'x' * number}.jpg" for number in range(8)] + [f"{web}/404/a.jpg", f"{web}/410/b.jpg"]
    rejected = cut(tmp_path, lines, 0.2)
    assert {row["image"]: (row["reason"], row["detail"]) for row in rejected} == {
        lines[8]: ("gone", "HTTP 404"),
        lines[9]: ("gone", "HTTP 410"),
    }
    (tmp_path / "again").mkdir()
    with pytest.raises(SettingError, match=r"2 of 10 views were rejected"):
        cut(tmp_path / "again", lines, 0.1)


def test_dead_addresses_are_no_copies_of_each_other(web: str) -> None:
    images = [SourceImage(key=name, uri=f"{web}/404/{name}") for name in "ab"]
    joined = ImageHasher(retries=QUICK).hash(images)
    assert len(joined) == 64
    assert joined[:32] != joined[32:]
