"""Opening: local files in groups, so that decoding does not slow it down, and never more decoded images than needed."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from pipeline.config import ViewsConfig
from pipeline.images.decoding import Picture
from pipeline.images.listing import SourceImage
from pipeline.images.reader import ImageReader
from pipeline.views import opening
from pipeline.views.opening import OpenedView, RejectedView, open_views
from pipeline.views.sampling import DrawnView


def encoded(form: str) -> bytes:
    """An image file."""
    body = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(body, form)
    return body.getvalue()


JPEG, PNG = encoded("JPEG"), encoded("PNG")
Opened = Callable[[Sequence[bytes]], Iterator[OpenedView | RejectedView]]


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> list[Picture]:
    """The pictures that were opened, in order."""
    made, open_picture = list[Picture](), opening.open_picture

    def noted(body: bytes, limits: ViewsConfig) -> Picture:
        made.append(open_picture(body, limits))
        return made[-1]

    monkeypatch.setattr(opening, "open_picture", noted)
    return made


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Write files to a folder, and open them."""

    def open_files(bodies: Sequence[bytes]) -> Iterator[OpenedView | RejectedView]:
        for number, body in enumerate(bodies):
            (tmp_path / f"{number}").write_bytes(body)
        return open_views(views_of(len(bodies), tmp_path.as_uri()), ImageReader(), ViewsConfig())

    return open_files


def views_of(count: int, folder: str) -> list[DrawnView]:
    """The views of images `0`, `1`, … in a folder."""
    images = [SourceImage(key=f"{number}", uri=f"{folder}/{number}") for number in range(count)]
    return [DrawnView(image=image, draw=0, split="train") for image in images]


def test_views_come_in_their_order_the_rejected_ones_among_them(opened: Opened) -> None:
    found = list(opened([JPEG, b"", PNG, b"no image", JPEG]))
    assert [(view.view.image.key, type(view)) for view in found] == [
        ("0", OpenedView),
        ("1", RejectedView),
        ("2", OpenedView),
        ("3", RejectedView),
        ("4", OpenedView),
    ]
    assert [view.row["reason"] for view in found if isinstance(view, RejectedView)] == ["empty", "not an image"]


def test_local_jpegs_are_opened_in_groups_of_so_many_bytes(
    opened: Opened, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "OPENED_BYTES", 3 * len(JPEG))
    views = opened([JPEG] * 7)
    counts = [len(pictures) for _ in views]
    assert counts == [3, 3, 3, 6, 6, 6, 7]
    assert all(picture.decoded == {} for picture in pictures)


def test_no_more_is_opened_while_an_image_waits_that_is_decoded_already(
    opened: Opened, pictures: list[Picture]
) -> None:
    counts = [len(pictures) for _ in opened([PNG, PNG, JPEG, JPEG, PNG, JPEG])]
    assert counts == [1, 2, 5, 5, 5, 6]


def test_images_behind_a_network_are_opened_as_they_come(pictures: list[Picture]) -> None:
    memory = fsspec.filesystem("memory")
    for number in range(4):
        memory.pipe_file(f"/opening/{number}", JPEG)
    views = open_views(views_of(4, "memory://opening"), ImageReader(), ViewsConfig())
    assert [len(pictures) for _ in views] == [1, 2, 3, 4]
