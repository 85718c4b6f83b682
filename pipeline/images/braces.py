"""Patterns in braces, as shells and WebDataset have them: `{0000..0010}.tar` and `{train,val}`."""

import re

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand(text: str) -> list[str]:
    """Return the texts that a pattern in braces stands for, in order; the text itself where it has none.

    A range of numbers counts up or down, by one. Its numbers have as many digits as its first, at least.

    Args:
        text: a path. Braces without a comma or a range in them are part of a name.
    """
    for found in _BRACES.finditer(text):
        if parts := _parts(found[1]):
            before, after = text[: found.start()], text[found.end() :]
            return [before + part + rest for part in parts for rest in expand(after)]
    return [text]


def _parts(inside: str) -> list[str]:
    if "," in inside:
        return inside.split(",")
    if not (bounds := _RANGE.fullmatch(inside)):
        return []
    first, last, digits = int(bounds[1]), int(bounds[2]), len(bounds[1])
    step = 1 if last >= first else -1
    return [f"{number:0{digits}}" for number in range(first, last + step, step)]
