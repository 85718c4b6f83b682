"""Ranges of bytes inside an object."""

Span = tuple[str, int | None, int | None]
"""An object's path, and where the bytes wanted start and stop; None for all."""
