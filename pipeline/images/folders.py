"""Folders of this machine: the files in them and below, behind links too."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from pipeline.images.names import is_hidden
from pipeline.images.passed_over import HIDDEN_FILES, HIDDEN_FOLDERS, LOOPS, SPECIAL, PassedOver
from storage_schemas.format.errors import Problem, SettingError, first_problems


@final
@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """A walk through folders."""

    passed_over: PassedOver
    """Counts what is not yielded."""
    dangling: list[str] = field(default_factory=list)
    """Links that lead nowhere, as they are met."""

    def files(
        self, folder: str, above: tuple[str, ...] = (), most: int | None = None, *, linked: bool = False
    ) -> Iterator[str]:
        """Yield the path of every regular file that is not hidden.

        Links are followed. A link to a folder that it lies in is not, as it has no end.

        Args:
            folder: where to begin.
            above: folders that the walk came through.
            most: how many levels to look into, files in `folder` itself being on the first; all when None.
            linked: whether the walk came through a link. Folders above can be met again only then.

        Raises:
            SettingError: a folder cannot be listed.
        """
        # fsspec would keep a kilobyte for the status of each file, and skip folders that it may not read
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        self.passed_over.add(*_hidden(entry))
                    elif _leads_nowhere(entry):
                        self.dangling.append(entry.path)
                    elif entry.is_file():
                        yield entry.path
                    elif not entry.is_dir():
                        self.passed_over.add(SPECIAL)
                    elif (linked or entry.is_symlink()) and _is_one_of(entry, (*above, folder)):
                        self.passed_over.add(LOOPS, entry.name)
                    elif most is None or most > 1:
                        deeper, behind = None if most is None else most - 1, linked or entry.is_symlink()
                        yield from self.files(entry.path, (*above, folder), deeper, linked=behind)
        except OSError as error:
            raise not_listed(folder, error) from error


def files_by_old_rules(folder: str) -> Iterator[str]:
    """Yield everything that is no folder, as version 0.1 did: hidden files too, and nothing behind links to folders."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from files_by_old_rules(entry.path)
                else:
                    yield entry.path
    except OSError as error:
        raise not_listed(folder, error) from error


def require_no_dangling(links: list[str]) -> None:
    """Refuse links that lead nowhere.

    Raises:
        SettingError: names them, with their targets.
    """
    if links:
        fix = "restore what it leads to, or delete the link"
        problems = [Problem(place=link, found=f"is a link to {os.readlink(link)}, where nothing is") for link in links]
        raise SettingError("DATA", [*first_problems(sorted(problems, key=str)), Problem(place="what to do", found=fix)])


def not_listed(folder: str, error: OSError) -> SettingError:
    """Return the refusal of a folder that cannot be listed."""
    found, fix = f"cannot be listed: {error.strerror}", "make it readable, or leave it out of DATA"
    return SettingError("DATA", [Problem(place=folder, found=found, fix=fix)])


def _hidden(entry: os.DirEntry[str]) -> tuple[str, str]:
    return (HIDDEN_FOLDERS, entry.name) if entry.is_dir() else (HIDDEN_FILES, "")


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _is_one_of(entry: os.DirEntry[str], folders: tuple[str, ...]) -> bool:
    return any(os.path.samefile(entry.path, folder) for folder in folders)
