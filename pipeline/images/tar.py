"""WebDataset archives: uncompressed tars, whose members are read in place without unpacking."""

import io
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from pipeline.config import OLD_RULES
from pipeline.images.archives import Archive
from pipeline.images.braces import expand
from pipeline.images.file_system import LISTING_TRIES, source_of
from pipeline.images.names import has_hidden_part, is_image, kind_passed_over
from pipeline.images.passed_over import HIDDEN_FILES, NOT_CHOSEN
from pipeline.images.reader import range_locator
from storage_schemas.format.errors import Problem, SettingError, first_few

TAIL_BYTES = 2**20
"""Bytes of what follows an end mark that are read at a time."""


def list_members(archive: Archive) -> Iterator[tuple[str, str]]:
    """List the images of a tar, from its headers alone.

    Args:
        archive: must not be compressed, as members are read in random order.

    Yields:
        (key: the name of the member without a leading `./`, unless the settings say otherwise; locator of its bytes).

    Raises:
        SettingError: it is not a tar, is compressed or truncated, or has more after its end mark; an image in it is a
            link or a sparse file; or a sample has several images and no setting chooses one.
    """
    members: Iterable[tuple[str, str]] = _members(archive)
    if archive.config.rules != OLD_RULES and not archive.config.members:
        members = list(members)
        _require_one_image_each(archive, [name for name, _ in members])
    for number, (name, locator) in enumerate(members):
        if _is_chosen(name, archive.config.members):
            yield archive.key(name, number), locator
        else:
            archive.passed_over.add(NOT_CHOSEN)


def _members(archive: Archive) -> Iterator[tuple[str, str]]:
    source, path = source_of(archive.uri, archive.retries, LISTING_TRIES)
    with source.open(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if not member.isdir() and _is_taken(archive, member):
                        stop = member.offset_data + member.size
                        locator = range_locator(archive.uri, member.offset_data, stop)
                        yield member.name.removeprefix("./"), locator
                _require_end(archive, file, tar.offset)
        except tarfile.TarError as error:
            fix = "unpack it if it is compressed; if it is damaged, download it again or leave it out"
            raise _refusal(archive.uri, f"is not a tar that can be read in place: {error}", fix) from error


def _is_taken(archive: Archive, member: tarfile.TarInfo) -> bool:
    """Say whether a member is an image; count it where it is passed over."""
    rules = archive.config.rules
    if not is_image(member.name, rules):
        archive.passed_over.add(*kind_passed_over(member.name))
        return False
    if rules != OLD_RULES and has_hidden_part(member.name):
        archive.passed_over.add(HIDDEN_FILES)
        return False
    if not member.isreg() or member.issparse():
        fix = "pack regular files, with `tar --dereference --hard-dereference`"
        raise _refusal(f"{archive.uri}: {member.name}", "is a link, a device or a sparse file", fix)
    return True


def _is_chosen(name: str, patterns: str) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in expand(patterns))


def _require_one_image_each(archive: Archive, names: Sequence[str]) -> None:
    """Refuse an archive of samples that have several images, such as a photograph and its mask."""
    images = Counter(sample_of(name) for name in names)
    if all(count == 1 for count in images.values()):
        return
    endings = Counter(_ending_of(name) for name in names if images[sample_of(name)] > 1)
    sample = next(name for name in names if images[sample_of(name)] > 1)
    found = f"has several images of one sample, {sample_of(sample)}: .{', .'.join(first_few(sorted(endings)))}"
    fix = (
        f"choose with --views.members, such as '*.{min(endings)}' or '*.{{jpg,png}}'; '*' takes each as an image of "
        "its own"
    )
    raise _refusal(archive.uri, found, fix)


def sample_of(name: str) -> str:
    """Return the sample that a member belongs to: its name up to the first dot of the file's name."""
    # as WebDataset has it: all up to the first dot of the file's name
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _ending_of(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2]


def _require_end(archive: Archive, file: io.IOBase, offset: int) -> None:
    # tarfile takes any unreadable header after the first for the end of the archive, and an empty block too
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        found = f"has neither a member nor an end mark at byte {offset}: it is damaged or truncated"
        raise _refusal(archive.uri, found, "download it again, or leave it out")
    while archive.config.rules != OLD_RULES and (more := file.read(TAIL_BYTES)):
        if more.strip(b"\0"):
            found = f"has an end mark at byte {offset} and more members or other data after it"
            fix = "if archives were joined, unpack them with `tar --ignore-zeros` and pack again; else download again"
            raise _refusal(archive.uri, found, fix)


def _refusal(place: str, found: str, fix: str) -> SettingError:
    return SettingError("archive", [Problem(place=place, found=found, fix=fix)])
