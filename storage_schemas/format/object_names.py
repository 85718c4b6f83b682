"""Which names our writers give to objects: everything else in a cache's folders was put there by others."""

import re

_SET = r"(?:low|high)-[1-9][0-9]{0,5}"
_TEACHER = r"[A-Za-z0-9_-]+"
_PART = r"[0-9]{5,}\.parquet"
_STATISTICS = r"[a-z_]+"
_UNIT = rf"(?:views/{_SET}(?:/detail/{_TEACHER})?|teachers/{_TEACHER}/{_SET})"
_ARRAY = rf"(?:views/{_SET}/(?:pixels|detail/{_TEACHER})|teachers/{_TEACHER}/{_SET}/(?:spatial|summary))"
_SMALL = rf"teachers/{_TEACHER}/(?:phi_s|stats|stats/{_SET})/{_STATISTICS}"
_GROUP = rf"(?:views(?:/{_SET}(?:/detail)?)?|teachers(?:/{_TEACHER}(?:/(?:{_SET}|phi_s|stats(?:/{_SET})?))?)?)"
_OURS = re.compile(
    rf"""(?:features\.zarr/(?:
            zarr\.json
          | {_GROUP}/zarr\.json
          | {_ARRAY}/(?:zarr\.json|c/[0-9]+(?:/0)*)
          | {_SMALL}/(?:zarr\.json|c(?:/0)*)
        )
        |tables/(?:
            images/{_PART}
          | (?:views|rejected)/{_SET}/{_PART}
          | placements/{_TEACHER}/{_SET}/{_PART}
          | shards/{_UNIT}/(?:after/[0-9]{{5,}}/)?{_PART}
          | heads/{_UNIT}/head\.json
          | snapshots/{_UNIT}/[0-9]{{5,}}-[0-9a-f]{{32}}\.parquet
        )
    )(?:\.[0-9a-f]{{32}}\.partial)?
    |tables/probe-[0-9a-f]{{32}}\.partial(?:\.[0-9a-f]{{32}}\.partial)?""",
    re.VERBOSE,
)


def is_ours(name: str) -> bool:
    """Say whether an object has a name that our writers give: a final name, or the temporary name before it.

    Args:
        name: of the object, relative to the cache.
    """
    return _OURS.fullmatch(name) is not None
