"""What a source names: a catalogue entry, or a class of the user's own."""

import difflib
from dataclasses import replace

from storage_schemas.errors import Problem, SettingError
from storage_schemas.teacher import TeacherSpec
from teachers.catalogue import CATALOGUE
from teachers.entry import CatalogueEntry


def is_own(source: str) -> bool:
    """Whether a source is `module:Class`."""
    return ":" in source


def entry_of(source: str) -> CatalogueEntry:
    """Return a catalogue entry.

    Raises:
        SettingError: no such name; it says which names are near.
    """
    if source in CATALOGUE:
        return CATALOGUE[source]
    near = difflib.get_close_matches(source, CATALOGUE, n=3, cutoff=0.5)
    found = f"no such teacher; did you mean {' or '.join(near)}?" if near else "no such teacher"
    fix = "`python -m pipeline teachers` lists them; one of your own is given as module:Class"
    raise SettingError(f"teacher {source!r}", [Problem(place="source", found=found, fix=fix)])


def renamed(spec: TeacherSpec, name: str | None) -> TeacherSpec:
    """Return the spec under another name, or as it is when `name` is None."""
    return spec if name is None else replace(spec, name=name)
