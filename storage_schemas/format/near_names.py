"""What helps a user who gave a name that does not exist."""

import difflib
from collections.abc import Collection


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return what helps a user who gave an unknown name: the names that are near, and all that there are."""
    near, there_are = difflib.get_close_matches(name, known, n=3), f"there are {', '.join(known)}"
    return f"did you mean {' or '.join(near)}? {there_are}" if near else there_are
