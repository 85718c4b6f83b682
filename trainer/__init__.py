"""The trainer: students distilled from the cache alone. `trainer.load` brings an exported one back."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.export import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `python -m trainer --help` has no use for it
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trainer.export import load

    return load
