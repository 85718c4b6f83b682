"""Reading: exactly the bytes of an image, wherever they are, and an error where they cannot be read."""

from pathlib import Path

import pytest
from image_forms import write_parquet

from pipeline.images.listing import list_images
from pipeline.images.reader import ImageReader, cell_locator, range_locator
from storage_schemas.format.errors import MissingError

FIX = "restore it and run the same command again, which resumes"
OR_EMPTY = "; or put an empty file in its place, which is then rejected"


def refusal(locator: str) -> str:
    """The message with which a locator is refused."""
    with pytest.raises(MissingError) as caught:
        ImageReader().read(locator)
    return str(caught.value)


def test_exactly_the_range_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a #b.tar"
    path.write_bytes(bytes(range(100)))
    assert ImageReader().read(range_locator(f"file://{path}", 10, 20)) == bytes(range(10, 20))
    assert ImageReader().read(range_locator(f"file://{path}", 10, 10)) == b""


def test_a_cell_of_a_parquet_file_is_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"jpg": b"%d" % number} for number in range(10)], rows_per_group=4)
    assert ImageReader().read(cell_locator(path.as_uri(), 2, 1, "jpg")) == b"9"


def gone(path: Path) -> None:
    """Delete the file."""
    path.unlink()


def cut_short(path: Path) -> None:
    """Truncate the file."""
    path.write_bytes(path.read_bytes()[:15])


@pytest.mark.parametrize(
    ("part", "spoil", "found"),
    [
        ("", gone, "FileNotFoundError"),
        ("#bytes=10-20", gone, "FileNotFoundError"),
        ("#bytes=10-20", cut_short, "EOFError"),
        ("#group=0&row=0&column=jpg", cut_short, "ArrowInvalid"),
        ("#group=0&row=9&column=jpg", lambda _: None, "IndexError"),
    ],
)
def test_an_image_that_cannot_be_read_ends_the_run(tmp_path: Path, part: str, spoil, found: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"jpg": b"abc"}])
    spoil(path)
    locator = f"{path.as_uri()}{part}"
    fix = FIX if part else FIX + OR_EMPTY
    assert refusal(locator) == f"source image is missing:\n  {locator}: cannot be read: {found} ({fix})"


def test_row_groups_are_kept_up_to_a_number_of_bytes_and_read_once(tmp_path: Path) -> None:
    body = bytes(1000)
    path = write_parquet(tmp_path / "a.parquet", [{"jpg": body} for _ in range(6)], rows_per_group=1)
    locators = [image.uri for image in list_images(str(tmp_path))]
    roomy, narrow, none = (ImageReader(cached_bytes=most) for most in (10**6, 2500, 0))
    for reader in (roomy, narrow, none):
        assert [reader.read(locator) for locator in locators] == [body] * 6
    assert [len(reader._groups) for reader in (roomy, narrow, none)] == [6, 2, 1]
    path.unlink()
    assert [roomy.read(locator) for locator in locators] == [body] * 6
    assert [narrow.read(locator) for locator in locators[-2:]] == [body] * 2
    with pytest.raises(MissingError):
        narrow.read(locators[0])
