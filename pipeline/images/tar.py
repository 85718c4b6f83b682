"""WebDataset archives: uncompressed tars, whose members are read in place without unpacking."""

import io
import tarfile
from collections.abc import Callable, Iterator

from pipeline.images.file_system import LISTING_TRIES, source_of
from pipeline.images.reader import range_locator
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.retry_policy import RetryPolicy


def list_members(uri: str, is_image: Callable[[str], bool], retries: RetryPolicy) -> Iterator[tuple[str, str]]:
    """List the images of a tar, from its headers alone.

    Args:
        uri: URI of the archive, which must not be compressed: members are read in random order.
        is_image: says whether a name is that of an image.
        retries: how long a store behind a network may fail.

    Yields:
        (name of the member, without a leading `./`; locator of its bytes).

    Raises:
        SettingError: it is not a tar, is compressed or truncated, or an image in it is a link or a sparse file.
    """
    source, path = source_of(uri, retries, LISTING_TRIES)
    with source.open(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if is_image(member.name) and not member.isdir():
                        _require_plain(uri, member)
                        stop = member.offset_data + member.size
                        yield member.name.removeprefix("./"), range_locator(uri, member.offset_data, stop)
                _require_end(uri, file, archive.offset)
        except tarfile.TarError as error:
            fix = "unpack it if it is compressed; if it is damaged, download it again or leave it out"
            raise _refusal(uri, f"is not a tar that can be read in place: {error}", fix) from error


def _require_plain(uri: str, member: tarfile.TarInfo) -> None:
    if not member.isreg() or member.issparse():
        fix = "pack regular files, with `tar --dereference --hard-dereference`"
        raise _refusal(f"{uri}: {member.name}", "is a link, a device or a sparse file", fix)


def _require_end(uri: str, file: io.IOBase, offset: int) -> None:
    # tarfile takes any unreadable header after the first for the end of the archive
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        found = f"has neither a member nor an end mark at byte {offset}: it is damaged or truncated"
        raise _refusal(uri, found, "download it again, or leave it out")


def _refusal(place: str, found: str, fix: str) -> SettingError:
    return SettingError("archive", [Problem(place=place, found=found, fix=fix)])
