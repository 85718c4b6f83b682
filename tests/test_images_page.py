"""`docs/images.md` says what the code does: every ending, column, format, reason and limit."""

import re
from pathlib import Path

import pytest

from pipeline.config import RunConfig, ViewsConfig
from pipeline.images.decoding import FORMATS, OVERSAMPLING
from pipeline.images.limits import (
    CACHED_BYTES,
    DECODER_BYTES,
    DECODER_BYTES_PER_PIXEL,
    FILE_BYTES,
    GROUP_BYTES,
    GROUP_RATIO,
)
from pipeline.images.lists import URI_COLUMNS
from pipeline.images.names import COMPRESSED_SUFFIXES, SUFFIXES, UNDECODED_SUFFIXES
from pipeline.images.parquet import IMAGE_COLUMNS, KEY_COLUMNS, MORE_IMAGE_COLUMNS, STATUS, SUCCESS
from pipeline.views.accepted import DEFAULT_SHARE

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "images.md").read_text()
SOURCES = "".join((DOCS.parent / f"pipeline/images/{name}.py").read_text() for name in ("decoding", "reader"))
REASONS = set(re.findall(r'UnusableImageError\("([^"]+)"', SOURCES))


@pytest.mark.parametrize(
    "name",
    [
        *sorted(SUFFIXES | UNDECODED_SUFFIXES | COMPRESSED_SUFFIXES),
        *(*IMAGE_COLUMNS, *MORE_IMAGE_COLUMNS, *KEY_COLUMNS, *URI_COLUMNS, STATUS, SUCCESS),
    ],
)
def test_the_page_has_every_ending_and_every_column(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_has_every_format(name: str) -> None:
    assert {"JPEG2000": "JPEG 2000", "WEBP": "WebP"}.get(name, name) in PAGE.split("## Decoding")[1]


def test_the_page_has_every_reason_and_no_other() -> None:
    told = re.findall(r"^\| `([^`]+)` \|", PAGE.split("## What is rejected")[1], re.MULTILINE)
    assert set(told) == REASONS
    assert len(REASONS) == 10


def test_the_page_has_the_limits() -> None:
    config = ViewsConfig()
    assert f"`--views.max-pixels`, {config.max_pixels:,} |" in PAGE
    assert f"`--views.min-side`, {config.min_side} |" in PAGE
    assert f"`--views.max-aspect`, {config.max_aspect:g} |" in PAGE
    assert f"keeps {CACHED_BYTES // 2**20} MiB of them" in PAGE
    assert f"more than {FILE_BYTES // 2**30} GiB" in PAGE
    assert f"more than {GROUP_BYTES // 2**30} GiB and more than {GROUP_RATIO} times" in PAGE
    assert f"{DECODER_BYTES_PER_PIXEL} bytes for each pixel and {DECODER_BYTES // 2**20} MiB" in PAGE
    assert OVERSAMPLING == 3
    assert "at least three pixels left" in PAGE
    assert (RunConfig().max_rejected, DEFAULT_SHARE) == (None, 1 / 100)
    assert "Up to one view in a hundred" in next(DOCS.glob("decisions/0009*")).read_text()
