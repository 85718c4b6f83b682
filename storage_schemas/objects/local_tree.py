"""Names of local files: what lies below a folder, how large it is, and that no link is on the way to it.

A cache holds files and folders, and nothing else. Behind a symbolic link lie files of somebody else: a command that
followed it would overwrite or delete them, and one that did not follow it would not see what was committed there. So a
link below the cache's own folder is refused by name. The cache's own folder may be a link.
"""

import os
import stat
from collections.abc import Iterator

from storage_schemas.format.errors import Problem, StorageError, first_problems
from storage_schemas.objects.refusals import ABSENT, refused

NO_LINKS = "move what it points to here, or mount it here; only the cache's own folder may be a link"


def require_no_links(root: str, name: str) -> None:
    """Refuse a name where it, or a folder between it and the root, is a symbolic link.

    Args:
        root: the folder of the store.
        name: the object or folder, relative to it.

    Raises:
        StorageError: a link is on the way.
    """
    path = root
    for part in filter(None, name.split("/")):
        path = os.path.join(path, part)
        if os.path.islink(path):
            raise StorageError("storage", [_link(path)])


def names_below(root: str, prefix: str) -> list[str]:
    """Return the names of all files below a folder, relative to the root, unsorted; none where it is absent.

    Args:
        root: the folder of the store.
        prefix: the folder, relative to the root; or a file, which is then the only one.

    Raises:
        StorageError: a folder cannot be listed; or something there is neither a file nor a folder. It names every link
            that it meets, up to ten.
    """
    require_no_links(root, prefix)
    top = os.path.join(root, prefix)
    if _is_file(top):
        return [prefix]
    found, odd = list[str](), list[Problem]()
    for entry in _entries(top):
        if entry.is_file(follow_symlinks=False):
            found.append(os.path.relpath(entry.path, root))
        else:
            odd.append(_link(entry.path) if entry.is_symlink() else _no_file(entry.path))
    if odd:
        raise StorageError("storage", first_problems(sorted(odd, key=lambda problem: problem.place)))
    return found


def names_in(root: str, folder: str) -> list[str]:
    """Return the names of the files and folders in a folder, unsorted; none where it is absent.

    Raises:
        StorageError: it cannot be listed, or a link is on the way or in it.
    """
    require_no_links(root, folder)
    path = os.path.join(root, folder)
    entries = list(_listed(path))
    if links := [_link(entry.path) for entry in entries if entry.is_symlink()]:
        raise StorageError("storage", first_problems(sorted(links, key=lambda problem: problem.place)))
    return [entry.name for entry in entries]


def size_of(path: str) -> int | None:
    """Return the size of a local file (bytes), or None where there is none.

    Raises:
        StorageError: the file system does not tell.
    """
    try:
        return os.stat(path).st_size
    except ABSENT:
        return None
    except OSError as error:
        raise refused(path, error) from error


def remove_file(root: str, name: str) -> None:
    """Delete a local file of a store. It is not an error where it is gone.

    Raises:
        StorageError: a link is on the way, or the file system refuses.
    """
    require_no_links(root, name)
    path = os.path.join(root, name)
    try:
        os.remove(path)
    except ABSENT:
        return
    except OSError as error:
        problem = Problem(place=path, found=f"cannot be deleted: {error.strerror or error}")
        raise StorageError("storage", [problem]) from error


def _entries(folder: str) -> Iterator["os.DirEntry[str]"]:
    """Yield everything below a folder but folders. Links are yielded, and not followed."""
    for entry in _listed(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path)
        else:
            yield entry


def _listed(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except ABSENT:
        return []  # or it was deleted since the folder above it was listed
    except OSError as error:
        raise refused(folder, error) from error


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except ABSENT:
        return False
    except OSError as error:
        raise refused(path, error) from error


def _link(path: str) -> Problem:
    return Problem(place=path, found=f"is a link to {os.readlink(path)}: a cache holds no links", fix=NO_LINKS)


def _no_file(path: str) -> Problem:
    found = "is neither a file nor a folder: a cache holds nothing else"
    return Problem(place=path, found=found, fix="move it out of the cache")
