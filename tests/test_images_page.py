"""`docs/images.md` says what the code does: every ending, column, format, reason and limit."""

import re
from pathlib import Path

import pytest

from pipeline.config import RunConfig, ViewsConfig
from pipeline.images.decoding import FORMATS, OVERSAMPLING
from pipeline.images.listing import SUFFIXES
from pipeline.images.parquet import IMAGE_COLUMNS, KEY_COLUMNS, STATUS, SUCCESS
from pipeline.images.reader import CACHED_BYTES
from pipeline.views.accepted import DEFAULT_SHARE

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "images.md").read_text()
REASONS = set(re.findall(r'UnusableImageError\("([^"]+)"', (DOCS.parent / "pipeline/images/decoding.py").read_text()))


@pytest.mark.parametrize("name", [*sorted(SUFFIXES), *IMAGE_COLUMNS, *KEY_COLUMNS, STATUS, SUCCESS])
def test_the_page_has_every_ending_and_every_column(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_has_every_format(name: str) -> None:
    assert {"JPEG2000": "JPEG 2000", "WEBP": "WebP"}.get(name, name) in PAGE.split("## Decoding")[1]


def test_the_page_has_every_reason_and_no_other() -> None:
    told = re.findall(r"^\| `([^`]+)` \|", PAGE.split("## What is rejected")[1], re.MULTILINE)
    assert set(told) == REASONS
    assert len(REASONS) == 8


def test_the_page_has_the_limits() -> None:
    config = ViewsConfig()
    assert f"`--views.max-pixels`, {config.max_pixels:,} |" in PAGE
    assert f"`--views.min-side`, {config.min_side} |" in PAGE
    assert f"`--views.max-aspect`, {config.max_aspect:g} |" in PAGE
    assert f"keeps {CACHED_BYTES // 2**20} MiB of them" in PAGE
    assert OVERSAMPLING == 3
    assert "at least three pixels left" in PAGE
    assert (RunConfig().max_rejected, DEFAULT_SHARE) == (None, 1 / 100)
    assert "Up to one view in a hundred" in next(DOCS.glob("decisions/0009*")).read_text()
