"""Forty files that are no images fit to be cut, among a hundred that are: a reason for each, and the run goes on."""

import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
EMPTY, ALIEN, DAMAGED, BOMB = "empty", "not an image", "damaged", "too many pixels"
SMALL, LONG, UNKNOWN, UNDECODED = "too small", "too elongated", "unknown range", "unknown kind"


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """An image file."""
    body = io.BytesIO()
    image.save(body, form, **options)
    return body.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that says it has this size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def resized_header(body: bytes, size: bytes, at: int) -> bytes:
    """An image file that says it has another size."""
    return body[:at] + size + body[at + len(size) :]


def hostile() -> dict[str, tuple[bytes, str]]:
    """Files by name, each with the reason for which it is refused."""
    picture = Image.fromarray(NOISE)
    whole = {form: encoded(picture, form) for form in FORMATS}
    bmp, jpeg, good = whole["BMP"], whole["JPEG"], whole["PNG"]
    frame = jpeg.index(b"\xff\xc0")
    files = {
        "zero.jpg": (b"", EMPTY),
        "zero.png": (b"", EMPTY),
        "page.jpg": (b"<html><body>404</body></html>", ALIEN),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ALIEN),
        "print.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 400 300\n%%EndComments\nshowpage\n", ALIEN),
        "paper.jpg": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", ALIEN),
        "archive.webp": (b"PK\x03\x04" + bytes(200), ALIEN),
        "noise.tiff": (random.Random(0).randbytes(5000), ALIEN),
        "zeros.bmp": (bytes(5000), ALIEN),
        "sound.webp": (b"RIFF" + struct.pack("<I", 100) + b"WAVEfmt " + bytes(92), ALIEN),
        "start.jpg": (b"\xff\xd8", ALIEN),
        "signature.png": (good[:8], UNDECODED),
        "bomb.png": (png(60000, 60000), BOMB),
        "bomb.gif": (resized_header(whole["GIF"], b"\xff\xff\xff\xff", 6), BOMB),
        "bomb.bmp": (resized_header(bmp, struct.pack("<ii", 40000, 40000), 18), BOMB),
        "bomb.jpg": (resized_header(jpeg, struct.pack(">HH", 65000, 65000), frame + 5), BOMB),
        "wide.png": (encoded(Image.new("RGB", (3000, 70)), "PNG"), LONG),
        "tall.jpg": (encoded(Image.new("RGB", (70, 3000)), "JPEG"), LONG),
        "strip.webp": (encoded(Image.new("RGB", (1500, 74)), "WEBP"), LONG),
        "pixel.gif": (encoded(Image.new("P", (1, 1)), "GIF"), SMALL),
        "icon.png": (encoded(Image.new("RGBA", (32, 32)), "PNG"), SMALL),
        "thumb.jpg": (encoded(Image.new("RGB", (63, 200)), "JPEG"), SMALL),
        "line.bmp": (encoded(Image.new("RGB", (5000, 1)), "BMP"), SMALL),
        "float.tif": (encoded(picture.convert("F"), "TIFF"), UNKNOWN),
        "integer.tif": (encoded(picture.convert("I"), "TIFF"), UNKNOWN),
        "without rows.png": (png(200, 200), DAMAGED),
        "spoilt.png": (good[:3000] + bytes(200) + good[3200:], DAMAGED),
        "without data.jpg": (jpeg[: jpeg.index(b"\xff\xda")], DAMAGED),
        "no height.jpg": (resized_header(jpeg, bytes(2), frame + 5), UNDECODED),
        "spoilt.webp": (whole["WEBP"][:12] + bytes(80) + whole["WEBP"][92:], ALIEN),
        "spoilt.jp2": (whole["JPEG2000"][:60] + bytes(200) + whole["JPEG2000"][260:], UNDECODED),
    }
    halves = {f"half.{form}": (body[: len(body) // 2], DAMAGED) for form, body in whole.items() if form != "AVIF"}
    halves["half.AVIF"] = (whole["AVIF"][: len(whole["AVIF"]) // 2], UNDECODED)  # it is opened whole or not at all
    return files | {f"{name}.jpg": file for name, file in halves.items()}


BROKEN_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"
"""Five entries, the first of which is cut short."""


def write_all(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Write a hundred good files and forty bad ones; return the bad ones."""
    folder.mkdir()
    for number in range(100):
        coarse = Image.fromarray(np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((120 + number, 100)).save(folder / f"good-{number:03d}.{('jpg', 'png', 'webp')[number % 3]}")
    with Image.open(folder / "good-000.jpg") as image:  # Pillow warns of what this tells, which is no reason
        image.save(folder / "good-000.jpg", exif=BROKEN_EXIF)
    bad = hostile()
    for name, (body, _) in bad.items():
        (folder / name).write_bytes(body)
    return bad


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Pillow's, about images of modes that we only write here
def test_forty_hostile_files_among_a_hundred_good_ones(tmp_path: Path) -> None:
    bad = write_all(tmp_path / "images")
    assert len(bad) == 40
    command = ["--data", str(tmp_path / "images"), "--cache", str(tmp_path / "cache"), "--run.executor", "local"]
    command += ["--views.draws", "1", "--views.tokens-per-shard", "2304", "--run.max-rejected", "0.3"]
    done = subprocess.run([sys.executable, "-m", "pipeline", "views", *command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "views: cut 100, rejected 40, wrote " in done.stdout
    tables = tmp_path / "cache/tables"
    views = [row for path in tables.glob("views/*/*.parquet") for row in pq.read_table(path).to_pylist()]
    rejected = [row for path in tables.glob("rejected/*/*.parquet") for row in pq.read_table(path).to_pylist()]
    assert sorted(row["image"] for row in views) == sorted(path.name for path in (tmp_path / "images").glob("good-*"))
    assert {row["image"]: row["reason"] for row in rejected} == {name: reason for name, (_, reason) in bad.items()}
    assert len(rejected) == 40
    assert all(row["detail"] for row in rejected)
