"""The source of a teacher: a name of the catalogue, `timm:<model.tag>`, or `module:Class` for a class of one's own."""

import difflib
import re
from dataclasses import replace

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import Precision, SizeRule, SummaryKind, TeacherSpec
from teachers.catalogue import CATALOGUE
from teachers.entry import CatalogueEntry
from teachers.kinds import LIBRARIES, kind_of
from teachers.layers import refuse_layers


def is_own(source: str) -> bool:
    """Whether a source is `module:Class`."""
    return kind_of(source) == "own"


def name_in_cache(source: str) -> str:
    """Return the name that a teacher has in a cache where no other is given.

    Raises:
        SettingError: no such catalogue entry, or a class that is not a teacher.
    """
    kind = kind_of(source)
    if kind in LIBRARIES:
        model = source.partition(":")[2].rstrip("/").rpartition("/")[2]
        return re.sub(r"[^A-Za-z0-9_-]+", "-", model)
    return _declared(source).name


def entry_of(source: str) -> CatalogueEntry:
    """Return a catalogue entry.

    Raises:
        SettingError: no such name; it suggests similar names.
    """
    if source in CATALOGUE:
        return CATALOGUE[source]
    near = difflib.get_close_matches(source, CATALOGUE, n=3, cutoff=0.5)
    found = f"no such teacher; did you mean {' or '.join(near)}?" if near else "no such teacher"
    fix = "`python -m pipeline teachers` lists them; or give timm:<model.tag>, or module:Class for a class of your own"
    raise SettingError(f"teacher {source!r}", [Problem(place="source", found=found, fix=fix)])


def renamed(spec: TeacherSpec, name: str | None) -> TeacherSpec:
    """Return the spec under another name; unchanged when `name` is None."""
    return spec if name is None else replace(spec, name=name)


def spec_of(
    source: str,
    *,
    name: str | None = None,
    random_weights: bool = False,
    summary: SummaryKind = "own",
    size_rule: SizeRule | None = None,
) -> TeacherSpec:
    """Return the spec of a source. A library's model is built without its weights for that.

    Args:
        source: a name in the catalogue, `timm:<model.tag>`, or `module:Class` for a teacher of your own.
        name: its name in the cache; None keeps the source's name.
        random_weights: whether its weights will be random.
        summary: where the summary of a library's model comes from.
        size_rule: which sizes a library's model gets; None for its own rule.

    Raises:
        SettingError: no such source, a class that is not a teacher, or a setting that this source does not take.
        ContractError: a library's model that gives no map, or not the map that it declares.
    """
    if kind_of(source) in LIBRARIES:
        from teachers.library import library_model  # imports torch, which the catalogue's entries do not need

        spec = library_model(source, summary, size_rule).spec
        return replace(spec, name=name or name_in_cache(source), random_weights=random_weights)
    spec = replace(renamed(_declared(source), name), random_weights=random_weights)
    _refuse_library_settings(spec, summary, size_rule)
    return spec


def _declared(source: str) -> TeacherSpec:
    if not is_own(source):
        return entry_of(source).spec
    from teachers.own import own_class  # imports torch, which the catalogue's entries do not need

    return own_class(source).declared


def _refuse_library_settings(spec: TeacherSpec, summary: SummaryKind, size_rule: SizeRule | None) -> None:
    problems = []
    fix = "it is for models of timm: and hf:; write a class of your own that declares it"
    if summary != "own":
        problems.append(Problem(place="summary", found=f"{summary!r}, and this teacher has one summary", fix=fix))
    if size_rule not in (None, spec.size_rule):
        found = f"{size_rule!r}, and this teacher declares {spec.size_rule!r}"
        problems.append(Problem(place="size_rule", found=found, fix=fix))
    if problems:
        raise SettingError(f"teacher {spec.name!r}", problems)


def specs_of(
    source: str,
    *,
    name: str | None = None,
    random_weights: bool = False,
    layers: tuple[int, ...] = (),
    tiles: int = 1,
    upsampler: str | None = None,
    summary: SummaryKind = "own",
    size_rule: SizeRule | None = None,
) -> tuple[TeacherSpec, ...]:
    """Return the spec of each map of a source in the cache: the last block's first, then those of `layers`.

    Raises:
        SettingError: as `spec_of`; or no such block, or tiles for a teacher that is not fixed.
        ContractError: as `spec_of`.
    """
    spec = spec_of(source, name=name, random_weights=random_weights, summary=summary, size_rule=size_rule)
    spec = replace(spec, tiles=tiles, upsampler=upsampler)
    if kind_of(source) in LIBRARIES:
        from teachers.library import library_model

        library_model(source, summary, size_rule).require_layers(spec.name, layers)
    else:
        refuse_layers(spec.name, layers, None if is_own(source) else entry_of(source).blocks)
    return spec, *(spec.block(layer) for layer in layers)


def precision_of(source: str, chosen: Precision | None) -> Precision:
    """Return the chosen precision; where none is, the catalogue's default, or `fp32` for any other source.

    Raises:
        SettingError: no such source.
    """
    if chosen is not None:
        return chosen
    return entry_of(source).precision if kind_of(source) == "catalogue" else "fp32"
