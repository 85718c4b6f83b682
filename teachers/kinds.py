"""Where a teacher's model comes from: the catalogue, a library, or the user's own code."""

from typing import Literal

SourceKind = Literal["catalogue", "own", "timm", "hf"]
LIBRARIES: tuple[SourceKind, ...] = ("timm", "hf")
"""Kinds of sources whose spec is read from a model that a library builds."""


def kind_of(source: str) -> SourceKind:
    """Return where a source's model comes from, by what stands before its colon."""
    before, colon, _ = source.partition(":")
    for library in LIBRARIES:
        if colon and before == library:
            return library
    return "own" if colon else "catalogue"
