"""Listing the images in DATA, in any of its forms; docs/images.md has the table.

The key of an image does not depend on the form: the same files in a folder and in tars give the same views.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import final

from pipeline.images.file_system import CONCURRENT_REQUESTS, LISTING_TRIES, Source, source_of
from pipeline.images.parquet import list_cells
from pipeline.images.reader import LOCAL
from pipeline.images.tar import list_members
from pipeline.workers.prefetch import ahead
from storage_schemas.format.errors import MissingError, Problem, SettingError, first_problems
from storage_schemas.objects.retry_policy import RetryPolicy

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Endings of image names, in any case. Files with other endings are ignored, except in a list, which may name any."""
FORMS = (
    "give a folder of images, of tars or of Parquet files; one tar or Parquet file; a pattern such as 'data/*.tar'; or "
    "a .txt list of URIs"
)

KeyedLocators = Iterator[tuple[str, str]]
"""(key, locator) of each image."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """One image of the list."""

    key: str
    """Stable name: its path below DATA, the member of a tar, the key of a Parquet row, or the line of a list."""
    uri: str
    """Where its bytes are: a locator, see `pipeline.images.reader`."""


def list_images(data: str, retries: RetryPolicy | None = None) -> list[SourceImage]:
    """List the images of DATA, sorted by key.

    Args:
        data: in any form, on any file system that fsspec can open.
        retries: how long a store behind a network may fail; the default when None.

    Raises:
        StorageError: a store behind a network failed for too long, or refuses.
        MissingError: DATA is empty, does not exist, or contains no image.
        SettingError: DATA has files of several kinds, an archive that cannot be read, two images with the same key, or
            a name that is not UTF-8, which no table can hold.
    """
    if not data:
        raise _no_data("--data", "is not given", FORMS)
    try:
        source, root = source_of(data, retries or RetryPolicy(), LISTING_TRIES)
    except (ValueError, ImportError) as error:
        raise SettingError("DATA", [Problem(place=data, found=str(error), fix=FORMS)]) from error
    listed = _list(source, root.rstrip("/"), data)
    images = sorted((SourceImage(key=key, uri=uri) for key, uri in listed), key=attrgetter("key"))
    if not images:
        raise _no_data(data, "contains no image", f"image names end in {', '.join(sorted(SUFFIXES))}")
    _require_utf8_keys(images)
    _require_unique_keys(images)
    return images


def is_image(name: str) -> bool:
    """Say whether a name ends like that of an image."""
    return _suffix(name) in SUFFIXES


def _list(source: Source, root: str, data: str) -> KeyedLocators:
    kind = source.kind(root)
    if kind == "file":
        if _suffix(root) == ".txt":
            return _in_list(source, root)
        return _of_one_kind(source, [root], root.rpartition("/")[0], data)
    if kind == "directory":
        return _in_folder(source, root, data)
    if not any(sign in root for sign in "*?["):
        raise _no_data(data, "does not exist", FORMS)
    folders = itertools.takewhile(lambda part: not any(sign in part for sign in "*?["), root.split("/"))
    return _of_one_kind(source, source.files_matching(root), "/".join(folders), data)


def _in_folder(source: Source, root: str, data: str) -> KeyedLocators:
    names = _files_below(root) if source.is_local else source.files_below(root)
    kinds = {*SUFFIXES, *ARCHIVES}
    named = [(name, suffix) for name in names if (suffix := _suffix(name)) in kinds]
    # img2dataset writes a Parquet file of captions next to each tar, or next to each folder of images
    captioned = {name.rpartition("/")[0] for name, suffix in named if suffix in SUFFIXES}
    captioned |= {name.removesuffix(".tar") for name, suffix in named if suffix == ".tar"}
    wanted = [name for name, suffix in named if not (suffix == ".parquet" and name.rpartition(".")[0] in captioned)]
    return _of_one_kind(source, wanted, root, data)


def _files_below(folder: str) -> Iterator[str]:
    # fsspec would keep a kilobyte for the status of each file, and skip folders that it may not read
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files_below(entry.path)
                else:
                    yield entry.path
    except OSError as error:
        found, fix = f"cannot be listed: {error.strerror}", "make it readable, or leave it out of DATA"
        raise SettingError("DATA", [Problem(place=folder, found=found, fix=fix)]) from error


def _of_one_kind(source: Source, names: Sequence[str], root: str, data: str) -> KeyedLocators:
    kinds = {"image" if suffix in SUFFIXES else suffix for suffix in map(_suffix, names)}
    if len(kinds) > 1:
        found = f"has files of several kinds: {', '.join(sorted(kinds))}"
        raise SettingError("DATA", [Problem(place=data, found=found, fix=FORMS)])
    if not kinds <= {"image", *ARCHIVES}:
        raise SettingError("DATA", [Problem(place=data, found="is not of a known form", fix=FORMS)])
    uris = ((name, _uri(source, name)) for name in sorted(names))
    if kinds <= {"image"}:
        return ((name.removeprefix(f"{root}/"), uri) for name, uri in uris)
    [kind] = kinds

    def listed(uri: str) -> list[tuple[str, str]]:
        return list(ARCHIVES[kind](uri, is_image, source.retries))

    archives, most = (uri for _, uri in uris), CONCURRENT_REQUESTS
    lists = ahead(listed, archives, depth=most, threads=most) if source.is_networked else map(listed, archives)
    return itertools.chain.from_iterable(lists)


def _uri(source: Source, name: str) -> str:
    # a local name is absolute and normalised already; fsspec would normalise each of millions again
    return f"{LOCAL}{name}" if source.is_local else source.uri(name)


def _in_list(source: Source, path: str) -> KeyedLocators:
    try:
        lines = source.read(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise SettingError("DATA", [Problem(place=path, found="is not UTF-8", fix="save it as UTF-8")]) from error
    folder = path.rpartition("/")[0]
    for key in filter(None, map(str.strip, lines)):
        if "://" in key:
            yield key, key
        else:
            yield key, source.uri(key if key.startswith("/") else f"{folder}/{key}")


def _require_utf8_keys(images: Sequence[SourceImage]) -> None:
    if others := [repr(image.key) for image in images if not _is_utf8(image.key)]:
        found = "its name is not UTF-8"
        raise SettingError("DATA", [Problem(place=place, found=found, fix="rename it") for place in others])


def _require_unique_keys(images: Sequence[SourceImage]) -> None:
    equal = [(first, second) for first, second in itertools.pairwise(images) if first.key == second.key]
    problems = [
        Problem(place=first.key, found=f"is the key of both {first.uri} and {second.uri}") for first, second in equal
    ]
    if problems:
        fix = "give every image a name of its own, over all archives: the name decides which views are drawn"
        raise SettingError("image list", [*first_problems(problems), Problem(place="what to do", found=fix)])


def _no_data(place: str, found: str, fix: str) -> MissingError:
    return MissingError("DATA", [Problem(place=place, found=found, fix=fix)])


def _suffix(path: str) -> str:
    return f".{path.rpartition('.')[2].lower()}"


def _is_utf8(text: str) -> bool:
    return text.encode(errors="ignore").decode() == text


ARCHIVES: Mapping[str, Callable[[str, Callable[[str], bool], RetryPolicy], KeyedLocators]] = {
    ".tar": list_members,
    ".parquet": list_cells,
}
"""The function that lists the images of an archive, by its suffix: (URI, whether a name is that of an image, retries)
→ (key, locator)."""
