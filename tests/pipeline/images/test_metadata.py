"""Metadata: whatever it holds, an image has the pixels that it has without, and the orientation that is stored."""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.config import ViewsConfig
from pipeline.images.decoding import open_picture
from pipeline.images.unusable import UnusableImageError

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
Entry = tuple[int, int, int, bytes]
"""Tag, type, count, and the four bytes of the value or its offset."""
TURNED: Entry = (0x112, 3, 1, struct.pack("<HH", 6, 0))
ODD_TAGS = (0x100, 0x102, 0x103, 0x106, 0x10E, 0x11A, 0x11B, 0x128, 0x131, 0x132, 0x13E, 0x211, 0x213, 0x214, 0x8298)
ODD_TAGS += (0x8769, 0x8825, 0x9000, 0x927C, 0x9286, 0xA005, 0xC4A5, 0xFFFF)
TYPES = (*range(14), 16, 99)
COUNTS = (0, 1, 2, 3, 5, 2**31, 2**32 - 1)
VALUES = (b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"abc\0", b"\x1a\0\0\0")


def saved(form: str, **options: Any) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, form, **options)
    return file.getvalue()


def decoded(body: bytes) -> np.ndarray:
    """The pixels of an image."""
    picture = open_picture(body, ViewsConfig(min_side=1))
    return np.asarray(picture.scaled_for((0, 0, picture.width, picture.height), 30)[0])


def outcome(body: bytes, expected: np.ndarray) -> str:
    """How an image is taken."""
    try:
        return "right" if np.array_equal(decoded(body), expected) else "wrong"
    except UnusableImageError as error:
        return f"{error.reason}: {error.detail}"


def exif(entries: Sequence[Entry]) -> bytes:
    """A directory of EXIF tags."""
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


def in_jpeg(metadata: bytes) -> bytes:
    """The picture as a JPEG with this EXIF."""
    segment = b"Exif\0\0" + metadata
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + JPEG[2:]


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def in_png(*chunks: bytes) -> bytes:
    """The picture as a PNG with these chunks after its header."""
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def in_webp(metadata: bytes) -> bytes:
    """The picture as a WebP with this EXIF."""
    return saved("WEBP", lossless=True, exif=b"Exif\0\0" + metadata)


JPEG, PNG = saved("JPEG", quality=95), saved("PNG")
UPRIGHT_JPEG, UPRIGHT = decoded(JPEG), COLOURS
TURNED_JPEG, TURNED_PIXELS = np.rot90(UPRIGHT_JPEG, -1), np.rot90(UPRIGHT, -1)


def odd_entries() -> Iterator[Entry]:
    """Tags with types, counts and values that they should not have."""
    return itertools.product(ODD_TAGS, TYPES, COUNTS, VALUES)


def assert_all_right(outcomes: dict[Any, str]) -> None:
    """Assert that every image of a family was taken as it is."""
    assert {kind: found for kind, found in outcomes.items() if found != "right"} == {}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_odd_tag_beside_an_orientation_changes_a_jpeg() -> None:
    entries = list(odd_entries())
    assert len(entries) == 12_880
    assert_all_right({entry: outcome(in_jpeg(exif([TURNED, entry])), TURNED_JPEG) for entry in entries})


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_few_odd_tags_beside_an_orientation_change_no_image(form: str) -> None:
    entries = list(odd_entries())[:: {"JPEG": 17, "PNG": 29, "WEBP": 53}[form]]
    into = {"JPEG": in_jpeg, "PNG": lambda metadata: in_png(chunk(b"eXIf", metadata)), "WEBP": in_webp}[form]
    expected = TURNED_JPEG if form == "JPEG" else TURNED_PIXELS
    assert_all_right({entry: outcome(into(exif([TURNED, entry])), expected) for entry in entries})


@pytest.mark.parametrize("kind", range(14))
@pytest.mark.parametrize("count", [0, 1, 2, 7, 2**32 - 1])
def test_an_orientation_of_any_type_and_count_is_applied_or_left_out(kind: int, count: int) -> None:
    for value in (b"\6\0\0\0", b"\0\0\0\6", b"\xff\xff\xff\xff", b"6\0\0\0", b"\x0c\0\0\0"):
        body = in_jpeg(exif([(0x112, kind, count, value)]))
        assert "right" in (outcome(body, TURNED_JPEG), outcome(body, UPRIGHT_JPEG)), value


BIG = PngInfo()
BIG.add_text("parameters", "x" * 2_000_000, zip=True)
WRONG_CRC = bytes(4)
ODD_CHUNKS: dict[str, bytes] = {
    "EXIF that is none": chunk(b"eXIf", b"garbage!garbage!"),
    "EXIF as Python's repr": chunk(b"eXIf", repr(b"Exif\0\0MM\0*").encode()),
    "EXIF with its prefix twice": chunk(b"eXIf", b"Exif\0\0Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "EXIF as text that is none": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nxyz"),
    "EXIF as packed text that is none": chunk(b"zTXt", b"Raw profile type exif\0\0xyz"),
    "EXIF as packed text without end": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(2**22))),
    "XMP that is not UTF-8": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff\xfe"),
    "XMP cut short": chunk(b"iTXt", b"XML:com.adobe.xmp"),
    "packed XMP cut short": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * 99)[:9]),
    "a text without end": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**24))),
    "a profile of 2 MB": chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2_000_000))),
    "a profile that is none": chunk(b"iCCP", b"a"),
    "short chunks": b"".join(chunk(name, b"") for name in (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tRNS", b"sBIT")),
    "frames that are none": chunk(b"acTL", b"\0"),
    "a frame that is none": chunk(b"fcTL", b"\0" * 26),
    "unknown chunks": chunk(b"abcd", b"x") + chunk(b"zzZz", b""),
    "wrong CRCs": b"".join(chunk(name, bytes(9))[:-4] + WRONG_CRC for name in (b"gAMA", b"tEXt", b"pHYs", b"eXIf")),
}


@pytest.mark.parametrize("name", ODD_CHUNKS)
def test_no_odd_chunk_changes_a_png(name: str) -> None:
    assert outcome(in_png(ODD_CHUNKS[name]), UPRIGHT) == "right"
    assert outcome(PNG[:-12] + ODD_CHUNKS[name] + PNG[-12:], UPRIGHT) == "right", "after the pixels"


def test_a_png_with_texts_beyond_pillows_limit_is_taken() -> None:
    assert outcome(saved("PNG", pnginfo=BIG), UPRIGHT) == "right"


def test_an_orientation_in_a_text_of_a_png_is_applied() -> None:
    profile = exif([TURNED])
    text = f"\nexif\n{len(profile):8}\n{profile.hex()}\n".encode()
    xmp = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    for odd in (
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
        chunk(b"eXIf", profile),
    ):
        assert outcome(in_png(odd), TURNED_PIXELS) == "right", odd


def test_a_critical_chunk_with_a_wrong_crc_is_damage() -> None:
    header = bytearray(PNG)
    header[29] ^= 1
    assert outcome(bytes(header), UPRIGHT).startswith(("damaged", "unknown kind"))


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


@pytest.mark.parametrize("marker", [0xE0, 0xE1, 0xE2, 0xE3, 0xEC, 0xED, 0xEE, 0xEF, 0xFE])
@pytest.mark.parametrize(
    "name", [b"", b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0", b"MPF\0", b"FPXR\0", b"Photoshop 3.0\0", b"http://ns\0"]
)
def test_no_odd_segment_changes_a_jpeg(marker: int, name: bytes) -> None:
    for data in (b"", b"\0", b"\xff" * 7, b"8BIM\4\4\0\0", b"8BIM\3\xed\0\0\0\0\0\x10" + bytes(16), bytes(64)):
        if (marker, name) == (0xE0, b"JFIF\0") and len(data) > 6:
            continue  # a second header, which decides over colours
        assert outcome(JPEG[:2] + segment(marker, name + data) + JPEG[2:], UPRIGHT_JPEG) == "right", data


def in_tiff(entry: Entry, order: str) -> bytes:
    """The picture, stored rotated, as a TIFF with this tag."""
    height, width, _ = COLOURS.shape
    pixels = {256: width, 257: height, 259: 1, 262: 2, 277: 3, 278: height, 279: COLOURS.nbytes}
    count = len(pixels) + 4
    after = 8 + 2 + 12 * count + 4
    fields = {tag: struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in pixels.items()}
    fields[258] = struct.pack(f"{order}HHII", 258, 3, 3, after)
    fields[274] = struct.pack(f"{order}HHIHH", 274, 3, 1, 6, 0)
    fields[273] = struct.pack(f"{order}HHII", 273, 4, 1, after + 6)
    fields[entry[0]] = struct.pack(f"{order}HHI", *entry[:3]) + entry[3]
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, count)
    directory = b"".join(fields[tag] for tag in sorted(fields))
    return head + directory + bytes(4) + struct.pack(f"{order}3H", 8, 8, 8) + COLOURS.tobytes()


@pytest.mark.parametrize("tag", [270, 271, 282, 283, 296, 305, 306, 315, 316, 700, 33432, 34665, 34675, 34853, 50341])
@pytest.mark.parametrize("order", "<>")
def test_no_odd_tag_changes_a_tiff(tag: int, order: str) -> None:
    entries = list(itertools.product((tag,), TYPES, COUNTS, VALUES))[::3]
    assert_all_right({entry: outcome(in_tiff(entry, order), TURNED_PIXELS) for entry in entries})
