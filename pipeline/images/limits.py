"""Limits of what an image may take, in one place; docs/images.md promises them."""

DECODER_BYTES_PER_PIXEL, DECODER_BYTES = 24, 64 * 2**20
"""Memory that a decoder may need for each pixel, and besides. An image counts as damaged only where so much was free.
"""
FILE_BYTES = 2**30
"""Most bytes of an image's file. Larger ones are rejected, and not read where their size is known."""
GROUP_BYTES, GROUP_RATIO = 2**30, 100
"""A column of a Parquet row group may inflate to so many bytes, or to so many times its compressed bytes."""
CACHED_BYTES = 256 * 2**20
"""Parquet row groups that a worker keeps: views are shuffled, and a row group is the smallest unit that can be read."""
