"""A label, and the names of classes that a file gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from storage_schemas.format.errors import MissingError, Problem, SettingError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The label of one image."""

    value: str
    """A name, or a number as text."""
    part: str = ""
    """The part that its place names, such as `train` or `val`; empty where it names none."""
    is_named: bool = False
    """Whether the value is a name that its archive gives."""


def read_names(path: Path) -> dict[str, str]:
    """Read a file of class names: label → name.

    Raises:
        MissingError: there is no such file.
        SettingError: it is not UTF-8, or a label has two names.
    """
    if not path.is_file():
        raise MissingError("names", [Problem(place=str(path), found="there is no such file")])
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise SettingError("names", [Problem(place=str(path), found="is not UTF-8")]) from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        label, tab, name = line.rstrip().partition("\t")
        label, name = (label, name) if tab else (str(number), label)
        if names.setdefault(label, name) != name:
            found = f"names {label} twice: {names[label]}, {name}"
            raise SettingError("names", [Problem(place=f"{path}, line {number + 1}", found=found)])
    return names
