"""WebDataset archives: plain tars, whose members are read in place. Nothing is unpacked."""

import io
import tarfile
from collections.abc import Callable, Iterator

from pipeline.images.file_system import TRIES, source_of
from pipeline.images.reader import stretch
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.patience import Patience


def list_members(uri: str, is_image: Callable[[str], bool], patience: Patience) -> Iterator[tuple[str, str]]:
    """List the images of a tar, from its headers alone.

    Args:
        uri: of the archive; not compressed, since members are read at random.
        is_image: says whether a name is an image's.
        patience: with a store behind a network.

    Yields:
        (member's name, without a leading `./`; locator of its bytes).

    Raises:
        SettingError: it is no tar, is compressed or cut short, or holds an image as a link or with holes.
    """
    source, path = source_of(uri, patience, TRIES)
    with source.open(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if is_image(member.name) and not member.isdir():
                        _require_plain(uri, member)
                        stop = member.offset_data + member.size
                        yield member.name.removeprefix("./"), stretch(uri, member.offset_data, stop)
                _require_end(uri, file, archive.offset)
        except tarfile.TarError as error:
            fix = "a compressed tar must be unpacked first; one that is damaged, fetched again or left out"
            raise _refusal(uri, f"is no tar that can be read in place: {error}", fix) from error


def _require_plain(uri: str, member: tarfile.TarInfo) -> None:
    if not member.isreg() or member.issparse():
        fix = "pack files, with `tar --dereference --hard-dereference`"
        raise _refusal(f"{uri}: {member.name}", "is a link, a device or a file with holes", fix)


def _require_end(uri: str, file: io.IOBase, offset: int) -> None:
    # tarfile takes a header that it cannot read, after the first, for the end of the archive
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        found = f"does not end as a tar does, at byte {offset}: it is damaged or cut short"
        raise _refusal(uri, found, "fetch it again, or leave it out")


def _refusal(place: str, found: str, fix: str) -> SettingError:
    return SettingError("archive", [Problem(place=place, found=found, fix=fix)])
