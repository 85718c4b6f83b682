"""Finding the source images, in the forms people have them; docs/images.md has the table.

A key names an image whatever its form: the same files in a folder and in tars give the same views.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import final

from pipeline.images.file_system import AT_ONCE, TRIES, Source, source_of
from pipeline.images.parquet import list_cells
from pipeline.images.reader import LOCAL
from pipeline.images.tar import list_members
from pipeline.workers.prefetch import ahead
from storage_schemas.format.errors import MissingError, Problem, SettingError
from storage_schemas.objects.patience import Patience

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Names that are taken for images (case is ignored); others are left alone. A list may name what it likes."""
FORMS = (
    "give a folder of images, of tars or of Parquet files; one tar or Parquet file; a pattern such as 'data/*.tar'; or "
    "a .txt list of URIs"
)
SHOWN = 10
"""Keys that a message names."""

Found = Iterator[tuple[str, str]]
"""(key, locator) of each image."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """One image of the list."""

    key: str
    """Stable name: its path below DATA, the member of a tar, the key of a Parquet row, the line of a list."""
    uri: str
    """Where its bytes are; see `pipeline.images.reader`."""


def list_images(data: str, patience: Patience | None = None) -> list[SourceImage]:
    """List the images of DATA, sorted by key.

    Args:
        data: in any form, on any file system that fsspec reaches.
        patience: with a store behind a network; as usual when None.

    Raises:
        StorageError: a store behind a network failed for too long, or refuses.
        MissingError: nothing is named, there is nothing of that name, or no image in it.
        SettingError: files of several kinds, an archive that cannot be read, two images of one key, or a name that is
            not UTF-8, which no table can hold.
    """
    if not data:
        raise _no_data("--data", "is not given", FORMS)
    try:
        source, root = source_of(data, patience or Patience(), TRIES)
    except (ValueError, ImportError) as error:
        raise SettingError("DATA", [Problem(place=data, found=str(error), fix=FORMS)]) from error
    found = _find(source, root.rstrip("/"), data)
    images = sorted((SourceImage(key=key, uri=uri) for key, uri in found), key=attrgetter("key"))
    if not images:
        raise _no_data(data, "holds no image", f"images end in {', '.join(sorted(SUFFIXES))}")
    _refuse_doubtful(images)
    return images


def is_image(name: str) -> bool:
    """Say whether a name ends as an image's does."""
    return _suffix(name) in SUFFIXES


def _find(source: Source, root: str, data: str) -> Found:
    kind = source.kind(root)
    if kind == "file":
        if _suffix(root) == ".txt":
            return _in_list(source, root)
        return _of_one_kind(source, [root], root.rpartition("/")[0], data)
    if kind == "directory":
        return _in_folder(source, root, data)
    if not any(sign in root for sign in "*?["):
        raise _no_data(data, "is not there", FORMS)
    folders = itertools.takewhile(lambda part: not any(sign in part for sign in "*?["), root.split("/"))
    return _of_one_kind(source, source.matching(root), "/".join(folders), data)


def _in_folder(source: Source, root: str, data: str) -> Found:
    names = _below(root) if source.is_local else source.below(root)
    kinds = {*SUFFIXES, *READERS}
    named = [(name, suffix) for name in names if (suffix := _suffix(name)) in kinds]
    # img2dataset writes a Parquet file of captions beside each tar, or beside each folder of images
    beside = {name.rpartition("/")[0] for name, suffix in named if suffix in SUFFIXES}
    beside |= {name.removesuffix(".tar") for name, suffix in named if suffix == ".tar"}
    wanted = [name for name, suffix in named if not (suffix == ".parquet" and name.rpartition(".")[0] in beside)]
    return _of_one_kind(source, wanted, root, data)


def _below(folder: str) -> Iterator[str]:
    # fsspec's own way there holds a kilobyte of each file's status, and leaves out folders that it may not read
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path)
                else:
                    yield entry.path
    except OSError as error:
        found, fix = f"cannot be listed: {error.strerror}", "make it readable, or leave it out of DATA"
        raise SettingError("DATA", [Problem(place=folder, found=found, fix=fix)]) from error


def _of_one_kind(source: Source, names: Sequence[str], root: str, data: str) -> Found:
    kinds = {"image" if suffix in SUFFIXES else suffix for suffix in map(_suffix, names)}
    if len(kinds) > 1 or not kinds <= {"image", *READERS}:
        found = f"names files of several kinds: {', '.join(sorted(kinds))}" if len(kinds) > 1 else "is of no form known"
        raise SettingError("DATA", [Problem(place=data, found=found, fix=FORMS)])
    uris = ((name, _uri(source, name)) for name in sorted(names))
    if kinds <= {"image"}:
        return ((name.removeprefix(f"{root}/"), uri) for name, uri in uris)
    [kind] = kinds

    def listed(uri: str) -> list[tuple[str, str]]:
        return list(READERS[kind](uri, is_image, source.patience))

    archives = (uri for _, uri in uris)
    at_once = source.is_networked
    lists = ahead(listed, archives, depth=AT_ONCE, threads=AT_ONCE) if at_once else map(listed, archives)
    return itertools.chain.from_iterable(lists)


def _uri(source: Source, name: str) -> str:
    # a local name is whole and plain already: fsspec would make it so once more, for each of millions
    return f"{LOCAL}{name}" if source.is_local else source.uri(name)


def _in_list(source: Source, path: str) -> Found:
    try:
        lines = source.read(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise SettingError("DATA", [Problem(place=path, found="is not UTF-8", fix="write it as UTF-8")]) from error
    folder = path.rpartition("/")[0]
    for key in filter(None, map(str.strip, lines)):
        if "://" in key:
            yield key, key
        else:
            yield key, source.uri(key if key.startswith("/") else f"{folder}/{key}")


def _refuse_doubtful(images: Sequence[SourceImage]) -> None:
    if odd := [one for one in images if _odd(one)]:
        found = "its name is not UTF-8"
        raise SettingError("DATA", [Problem(place=repr(one.key), found=found, fix="rename it") for one in odd])
    twice = [(one, other) for one, other in itertools.pairwise(images) if one.key == other.key]
    problems = [Problem(place=one.key, found=f"names both {one.uri} and {other.uri}") for one, other in twice[:SHOWN]]
    if len(twice) > SHOWN:
        problems.append(Problem(place="…", found=f"and {len(twice) - SHOWN} more"))
    if twice:
        fix = "give every image a name of its own, over all archives: views are drawn by name"
        raise SettingError("image list", [*problems, Problem(place="what to do", found=fix)])


def _no_data(place: str, found: str, fix: str) -> MissingError:
    return MissingError("DATA", [Problem(place=place, found=found, fix=fix)])


def _suffix(path: str) -> str:
    return f".{path.rpartition('.')[2].lower()}"


def _odd(image: SourceImage) -> bool:
    return image.key.encode(errors="ignore").decode() != image.key


READERS: Mapping[str, Callable[[str, Callable[[str], bool], Patience], Found]] = {
    ".tar": list_members,
    ".parquet": list_cells,
}
"""What lists an archive's images, by its suffix: (URI, is this an image's name?, patience) → (key, locator)."""
