"""The source of a teacher: the name of a catalogue entry, or `module:Class` for a class of the user's own."""

import difflib
from dataclasses import replace

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import Precision, TeacherSpec
from teachers.catalogue import CATALOGUE
from teachers.entry import CatalogueEntry
from teachers.layers import refuse_layers


def is_own(source: str) -> bool:
    """Whether a source is `module:Class`."""
    return ":" in source


def entry_of(source: str) -> CatalogueEntry:
    """Return a catalogue entry.

    Raises:
        SettingError: no such name; it suggests similar names.
    """
    if source in CATALOGUE:
        return CATALOGUE[source]
    near = difflib.get_close_matches(source, CATALOGUE, n=3, cutoff=0.5)
    found = f"no such teacher; did you mean {' or '.join(near)}?" if near else "no such teacher"
    fix = "`python -m pipeline teachers` lists them; for a class of your own give module:Class"
    raise SettingError(f"teacher {source!r}", [Problem(place="source", found=found, fix=fix)])


def renamed(spec: TeacherSpec, name: str | None) -> TeacherSpec:
    """Return the spec under another name; unchanged when `name` is None."""
    return spec if name is None else replace(spec, name=name)


def spec_of(source: str, *, name: str | None = None, random_weights: bool = False) -> TeacherSpec:
    """Return the spec of a source, without building it.

    Args:
        source: a name in the catalogue, or `module:Class` for a teacher of your own.
        name: its name in the cache; None keeps the source's name.
        random_weights: whether its weights will be random.

    Raises:
        SettingError: no such source, or a class that is not a teacher.
    """
    return replace(renamed(_declared(source), name), random_weights=random_weights)


def _declared(source: str) -> TeacherSpec:
    if not is_own(source):
        return entry_of(source).spec
    from teachers.own import own_class  # imports torch, which the catalogue's entries do not need

    return own_class(source).declared


def specs_of(
    source: str,
    *,
    name: str | None = None,
    random_weights: bool = False,
    layers: tuple[int, ...] = (),
    tiles: int = 1,
    upsampler: str | None = None,
) -> tuple[TeacherSpec, ...]:
    """Return the spec of each map of a source in the cache: the last block's first, then those of `layers`.

    Raises:
        SettingError: no such source, no such block, or tiles for a teacher that is not fixed.
    """
    spec = replace(spec_of(source, name=name, random_weights=random_weights), tiles=tiles, upsampler=upsampler)
    refuse_layers(spec.name, layers, None if is_own(source) else entry_of(source).blocks)
    return spec, *(spec.block(layer) for layer in layers)


def precision_of(source: str, chosen: Precision | None) -> Precision:
    """Return the chosen precision; where none is, the catalogue's default, or `fp32` for a class of the user's own.

    Raises:
        SettingError: no such source.
    """
    if chosen is not None:
        return chosen
    return "fp32" if is_own(source) else entry_of(source).precision
