"""Links that lead nowhere, in the path of a cache."""

import os

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.store import Store


def refuse_dangling_link(store: Store) -> None:
    """Refuse a folder whose path leads through a link to something that does not exist.

    Nothing can be made there, and the system's own errors say "exists" and "does not exist" of the same path.

    Raises:
        SettingError: with the link and what it leads to.
    """
    if not store.is_local:
        return
    path = store.path("")
    above = os.path.dirname(path)
    while path != above:
        if os.path.islink(path) and not os.path.exists(path):
            found = f"is a link to {os.readlink(path)}, which does not exist"
            fix = "mount or make what it leads to, or remove the link"
            raise SettingError("CACHE", [Problem(place=path, found=found, fix=fix)])
        path, above = above, os.path.dirname(above)
