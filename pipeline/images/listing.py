"""Listing the images in DATA, in any of its forms; docs/images.md has the table.

The key of an image does not depend on the form: the same files in a folder and in tars give the same views.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import final

from fsspec.utils import glob_translate

from pipeline.config import OLD_RULES, ViewsConfig
from pipeline.images.archives import Archive
from pipeline.images.braces import expand
from pipeline.images.file_system import CONCURRENT_REQUESTS, LISTING_TRIES, Source, source_of
from pipeline.images.folders import Walk, files_by_old_rules, require_no_dangling
from pipeline.images.lists import LIST_SUFFIXES, list_lines
from pipeline.images.names import (
    ARCHIVE_SUFFIXES,
    OLD_SUFFIXES,
    SUFFIXES,
    has_hidden_part,
    is_image,
    kind_passed_over,
    suffix_of,
)
from pipeline.images.parquet import list_cells
from pipeline.images.passed_over import CAPTIONS, COMPRESSED, HIDDEN_FILES, PassedOver
from pipeline.images.reader import LOCAL
from pipeline.images.tar import list_members
from pipeline.workers.prefetch import ahead
from pipeline.workers.progress import Say
from storage_schemas.format.errors import MissingError, Problem, SettingError, first_problems
from storage_schemas.objects.retry_policy import RetryPolicy

FORMS = (
    "give a folder of images, of tars or of Parquet files; one tar or Parquet file; a pattern such as 'data/*.tar'; or "
    "a .txt list of URIs"
)
SIGNS = "*?["
"""Signs of a pattern."""

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


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """One listing of DATA."""

    source: Source
    root: str
    """DATA as a path of its file system."""
    data: str
    """DATA as it was given, for messages."""
    config: ViewsConfig
    passed_over: PassedOver

    @property
    def is_old(self) -> bool:
        """Whether the rules of version 0.1 are asked for."""
        return self.config.rules == OLD_RULES

    def refusal(self, found: str, fix: str = FORMS, place: str = "") -> SettingError:
        """Return the refusal of DATA, or of a place in it."""
        return SettingError("DATA", [Problem(place=place or self.data, found=found, fix=fix)])


def list_images(
    data: str,
    config: ViewsConfig | None = None,
    retries: RetryPolicy | None = None,
    say: Say | None = None,
    passed_over: PassedOver | None = None,
) -> list[SourceImage]:
    """List the images of DATA, sorted by key.

    Args:
        data: in any form, on any file system that fsspec can open.
        config: decides which files are images, and how they are named; the default when None.
        retries: how long a store behind a network may fail; the default when None.
        say: takes a line that says what was passed over, where anything was.
        passed_over: counts what is passed over, for a caller that goes on with the counts.

    Raises:
        StorageError: a store behind a network failed for too long, or refuses.
        MissingError: DATA is empty, does not exist, or contains no image.
        SettingError: DATA has files of several kinds, an archive that cannot be read, a link that leads nowhere, two
            images with the same key, or a name that is not UTF-8, which no table can hold.
    """
    if not data:
        raise _no_data("--data", "is not given", FORMS)
    try:
        source, root = source_of(data, retries or RetryPolicy(), LISTING_TRIES)
    except (ValueError, ImportError) as error:
        raise SettingError("DATA", [Problem(place=data, found=str(error), fix=FORMS)]) from error
    counts = PassedOver() if passed_over is None else passed_over
    config = config or ViewsConfig()
    search = Search(source=source, root=root.rstrip("/"), data=data, config=config, passed_over=counts)
    images = sorted((SourceImage(key=key, uri=uri) for key, uri in _list(search)), key=attrgetter("key"))
    passed_over_text = str(counts)
    if not images:
        found = "contains no image" + (f"; it has {passed_over_text}" if passed_over_text else "")
        raise _no_data(data, found, f"image names end in {', '.join(sorted(SUFFIXES))}")
    _require_utf8_keys(images)
    _require_unique_keys(images)
    if say and passed_over_text:
        say(f"images: {len(images)} in DATA; passed over: {passed_over_text}")
    return images


def _list(search: Search) -> KeyedLocators:
    source, root = search.source, search.root
    kind = source.kind(root)
    if kind == "file":
        if suffix_of(root) in LIST_SUFFIXES:
            return list_lines(source, root, search.config, search.passed_over)
        return _of_one_kind(search, [root], root.rpartition("/")[0])
    if kind == "directory":
        return _of_one_kind(search, _in_folder(search, root), root)
    texts = [root] if search.is_old else expand(root)
    if texts == [root] and not _is_pattern(root):
        raise _no_data(search.data, _why_not_there(source, root), FORMS)
    signs = SIGNS if search.is_old else f"{SIGNS}{{"
    folders = itertools.takewhile(lambda part: not any(sign in part for sign in signs), root.split("/"))
    names = [name for text in texts for name in _expanded(search, text)]
    return _of_one_kind(search, list(dict.fromkeys(names)), "/".join(folders))


def _why_not_there(source: Source, path: str) -> str:
    if not source.is_local or not os.path.lexists(path):
        return "does not exist"
    if os.path.islink(path) and not os.path.exists(path):
        return f"is a link to {os.readlink(path)}, where nothing is"
    return "is neither a file nor a folder"


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in SIGNS)


def _expanded(search: Search, text: str) -> Iterable[str]:
    """Return the files that a text stands for: a pattern, or one of the names that a pattern in braces expands to."""
    if _is_pattern(text):
        return _matching(search, text)
    kind = search.source.kind(text)
    if kind is None:
        raise _no_data(text, _why_not_there(search.source, text), f"it is named by {search.data}")
    return [text] if kind == "file" else _in_folder(search, text)


def _matching(search: Search, pattern: str) -> Iterable[str]:
    if not search.source.is_local or search.is_old:
        matching = search.source.files_matching(pattern)
        return matching if search.is_old else [name for name in matching if not _is_hidden(pattern, name)]
    # not fsspec, which does not look behind links to folders
    fixed = "/".join(itertools.takewhile(lambda part: not _is_pattern(part), pattern.split("/")))
    walk, wanted = Walk(PassedOver()), re.compile(glob_translate(pattern))
    if not os.path.isdir(fixed or "/"):
        return []
    most = None if "**" in pattern else pattern.count("/") - fixed.count("/")
    found = [name for name in walk.files(fixed or "/", most=most) if wanted.fullmatch(name)]
    require_no_dangling([link for link in walk.dangling if wanted.fullmatch(link)])
    return found


def _is_hidden(pattern: str, name: str) -> bool:
    fixed = len(list(itertools.takewhile(lambda part: not _is_pattern(part), pattern.split("/"))))
    return has_hidden_part("/".join(name.split("/")[fixed:]))


def _in_folder(search: Search, root: str) -> list[str]:
    """Return the images in a folder and below, or the archives."""
    suffixes = OLD_SUFFIXES if search.is_old else SUFFIXES
    named, others = [], list[str]()
    for name in _files_below(search, root):
        if (suffix := suffix_of(name)) in suffixes or suffix in ARCHIVE_SUFFIXES:
            named.append((name, suffix))
        else:
            kind = kind_passed_over(name.removeprefix(f"{root}/"))
            search.passed_over.add(*kind)
            others += [name] if (kind[0] == COMPRESSED and ".tar." in name) or suffix == ".tgz" else []
    # img2dataset writes a Parquet file of captions next to each tar, or next to each folder of images
    captioned = {name.rpartition("/")[0] for name, suffix in named if suffix in suffixes}
    captioned |= {name.removesuffix(".tar") for name, suffix in named if suffix == ".tar"}
    wanted = []
    for name, suffix in named:
        if suffix == ".parquet" and name.rpartition(".")[0] in captioned:
            search.passed_over.add(CAPTIONS)
        else:
            wanted.append(name)
    if others and not search.is_old and any(suffix_of(name) == ".tar" for name in wanted):
        fix = "unpack it, as members are read in place; or leave it out with a pattern such as 'data/*.tar'"
        problems = [Problem(place=name, found="is a compressed tar beside others", fix=fix) for name in others]
        raise SettingError("DATA", first_problems(problems))
    return wanted


def _files_below(search: Search, root: str) -> Iterator[str]:
    if search.is_old:
        yield from files_by_old_rules(root) if search.source.is_local else search.source.files_below(root)
    elif search.source.is_local:
        walk = Walk(search.passed_over)
        yield from walk.files(root)
        require_no_dangling(walk.dangling)
    else:
        for name in search.source.files_below(root):
            if has_hidden_part(name.removeprefix(f"{root}/")):
                search.passed_over.add(HIDDEN_FILES)
            else:
                yield name


def _of_one_kind(search: Search, names: Sequence[str], root: str) -> KeyedLocators:
    rules = search.config.rules
    kinds = {"image" if is_image(name, rules) else suffix_of(name) for name in names}
    if len(kinds) > 1:
        raise search.refusal(f"has files of several kinds: {', '.join(sorted(kinds))}")
    if not kinds <= {"image", *ARCHIVES}:
        raise search.refusal("is not of a known form")
    uris = ((name.removeprefix(f"{root}/"), _uri(search.source, name)) for name in sorted(names))
    if kinds <= {"image"}:
        return uris
    [kind] = kinds
    return _in_archives(search, kind, uris)


def _in_archives(search: Search, kind: str, uris: Iterable[tuple[str, str]]) -> KeyedLocators:
    source, most = search.source, CONCURRENT_REQUESTS

    def listed(named: tuple[str, str]) -> tuple[list[tuple[str, str]], PassedOver]:
        archive = Archive(uri=named[1], name=named[0], config=search.config, retries=source.retries)
        return list(ARCHIVES[kind](archive)), archive.passed_over

    lists = ahead(listed, uris, depth=most, threads=most) if source.is_networked else map(listed, uris)
    for images, passed_over in lists:
        search.passed_over.add_all([passed_over])
        yield from images


def _uri(source: Source, name: str) -> str:
    # a local name is absolute and normalised already; fsspec would normalise each of millions again
    return f"{LOCAL}{name}" if source.is_local else source.uri(name)


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
        fix = "name each image once: its key decides which views are drawn"
        archives = [(first.uri.partition("#")[0], second.uri.partition("#")[0]) for first, second in equal]
        if any(first == second for first, second in archives):
            fix = "set --views.keys numbers: the path of the archive and the number of the image in it are then its key"
        elif "#" in equal[0][0].uri:
            fix = "set --views.keys archive, which puts the path of the archive before each key"
        raise SettingError("image list", [*first_problems(problems), Problem(place="what to do", found=fix)])


def _no_data(place: str, found: str, fix: str) -> MissingError:
    return MissingError("DATA", [Problem(place=place, found=found, fix=fix)])


def _is_utf8(text: str) -> bool:
    return text.encode(errors="ignore").decode() == text


ARCHIVES: Mapping[str, Callable[[Archive], KeyedLocators]] = {".tar": list_members, ".parquet": list_cells}
"""The function that lists the images of an archive as (key, locator), by its suffix."""
