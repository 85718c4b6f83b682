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
from pipeline.views.opening import ImageViews, Opened, OpenedView, RejectedView, open_images
from pipeline.views.order import DrawnView


def encoded(form: str) -> bytes:
    """An image file."""
    body = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(body, form)
    return body.getvalue()


JPEG, PNG = encoded("JPEG"), encoded("PNG")
OpenFiles = Callable[[Sequence[bytes]], Iterator[Opened]]


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
def opened(tmp_path: Path) -> OpenFiles:
    """Write files to a folder, and open them."""

    def open_files(bodies: Sequence[bytes]) -> Iterator[Opened]:
        for number, body in enumerate(bodies):
            (tmp_path / f"{number}").write_bytes(body)
        return open_images(views_of(len(bodies), tmp_path.as_uri()), ImageReader(), ViewsConfig())

    return open_files


def views_of(count: int, folder: str) -> list[ImageViews]:
    """Two views of each of the images `0`, `1`, … in a folder, for two shards."""
    images = [SourceImage(key=f"{number}", uri=f"{folder}/{number}") for number in range(count)]
    return [
        ImageViews(
            image=image,
            views=tuple((draw + 5, DrawnView(image=image, draw=draw, split="train")) for draw in range(2)),
        )
        for image in images
    ]


def test_views_come_in_their_order_the_rejected_ones_among_them(opened: OpenFiles) -> None:
    found = [view for views in opened([JPEG, b"", PNG, b"no image", JPEG]) for view in views]
    kinds = [OpenedView, RejectedView, OpenedView, RejectedView, OpenedView]
    assert [(shard, view.view.image.key, view.view.draw, type(view)) for shard, view in found] == [
        (draw + 5, f"{number}", draw, kind) for number, kind in enumerate(kinds) for draw in range(2)
    ]
    reasons = [view.row["reason"] for _, view in found if isinstance(view, RejectedView)]
    assert reasons == ["empty", "empty", "not an image", "not an image"]


def test_the_views_of_an_image_share_its_picture(opened: OpenFiles, pictures: list[Picture]) -> None:
    found = [view.picture for views in opened([JPEG, PNG]) for _, view in views if isinstance(view, OpenedView)]
    assert [id(picture) for picture in found] == [id(picture) for picture in pictures for _ in range(2)]


def test_local_jpegs_are_opened_in_groups_of_so_many_bytes(
    opened: OpenFiles, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "OPENED_BYTES", 3 * len(JPEG))
    views = opened([JPEG] * 7)
    counts = [len(pictures) for _ in views]
    assert counts == [3, 3, 3, 6, 6, 6, 7]
    assert all(picture.decoded == {} for picture in pictures)


def test_no_more_is_opened_while_an_image_waits_that_is_decoded_already(
    opened: OpenFiles, pictures: list[Picture]
) -> None:
    counts = [len(pictures) for _ in opened([PNG, PNG, JPEG, JPEG, PNG, JPEG])]
    assert counts == [1, 2, 5, 5, 5, 6]


def test_images_behind_a_network_are_opened_as_they_come(pictures: list[Picture]) -> None:
    memory = fsspec.filesystem("memory")
    for number in range(4):
        memory.pipe_file(f"/opening/{number}", JPEG)
    views = open_images(views_of(4, "memory://opening"), ImageReader(), ViewsConfig())
    assert [len(pictures) for _ in views] == [1, 2, 3, 4]
