"""The contract between the pipeline and the trainer, and the door through which a program reads a cache. No torch.

    from storage_schemas import Cache

    cache = Cache.open("out/demo/cache")               # a folder, or s3://bucket/prefix
    cache.contents()                                   # view sets and teachers, with counts
    view = cache.view("low-128", 17, units="raw")      # one view with the features of all its teachers
    view.pixels                                        # uint8 [side, side, 3]
    view.teachers["dinov3"].spatial                    # float32 [tokens, tokens, channels]

`docs/python.md` goes on from here; `docs/format.md` has every byte of a cache. A name is imported when it is first
used, so importing the package itself is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage_schemas.cache import Cache
    from storage_schemas.cached_views import CachedView, TeacherFeatures, Units, ViewReader
    from storage_schemas.contents import CacheContents, TeacherContents, ViewSetContents
    from storage_schemas.format.errors import (
        AbstractStillhouseError,
        BusyError,
        ContractError,
        CorruptionError,
        IdentityError,
        MissingError,
        Problem,
        SettingError,
        StorageError,
    )
    from storage_schemas.format.geometry import (
        AxisMatch,
        CanvasGeometry,
        Offset,
        TokenAxis,
        cut_windows,
        match_axis,
        match_tokens,
    )
    from storage_schemas.format.phi_s import PhiS, to_raw, to_stored
    from storage_schemas.format.stats import ChannelStats, TeacherStats
    from storage_schemas.format.teacher import TeacherSpec
    from storage_schemas.format.views import Split, ViewSet
    from storage_schemas.objects.retry_policy import RetryPolicy
    from storage_schemas.objects.store import Store
    from storage_schemas.read_cache import ReadCache, open_read_cache
    from storage_schemas.sharded_array import ShardedArray

_NAMES = {
    "storage_schemas.cache": ("Cache",),
    "storage_schemas.cached_views": ("CachedView", "TeacherFeatures", "Units", "ViewReader"),
    "storage_schemas.contents": ("CacheContents", "TeacherContents", "ViewSetContents"),
    "storage_schemas.format.errors": (
        "AbstractStillhouseError",
        "BusyError",
        "ContractError",
        "CorruptionError",
        "IdentityError",
        "MissingError",
        "Problem",
        "SettingError",
        "StorageError",
    ),
    "storage_schemas.format.geometry": (
        "AxisMatch",
        "CanvasGeometry",
        "Offset",
        "TokenAxis",
        "cut_windows",
        "match_axis",
        "match_tokens",
    ),
    "storage_schemas.format.phi_s": ("PhiS", "to_raw", "to_stored"),
    "storage_schemas.format.stats": ("ChannelStats", "TeacherStats"),
    "storage_schemas.format.teacher": ("TeacherSpec",),
    "storage_schemas.format.views": ("Split", "ViewSet"),
    "storage_schemas.objects.retry_policy": ("RetryPolicy",),
    "storage_schemas.objects.store": ("Store",),
    "storage_schemas.read_cache": ("ReadCache", "open_read_cache"),
    "storage_schemas.sharded_array": ("ShardedArray",),
}
"""Module → the public names that it defines."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [
    "AbstractStillhouseError",
    "AxisMatch",
    "BusyError",
    "Cache",
    "CacheContents",
    "CachedView",
    "CanvasGeometry",
    "ChannelStats",
    "ContractError",
    "CorruptionError",
    "IdentityError",
    "MissingError",
    "Offset",
    "PhiS",
    "Problem",
    "ReadCache",
    "RetryPolicy",
    "SettingError",
    "ShardedArray",
    "Split",
    "StorageError",
    "Store",
    "TeacherContents",
    "TeacherFeatures",
    "TeacherSpec",
    "TeacherStats",
    "TokenAxis",
    "Units",
    "ViewReader",
    "ViewSet",
    "ViewSetContents",
    "cut_windows",
    "match_axis",
    "match_tokens",
    "open_read_cache",
    "to_raw",
    "to_stored",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
