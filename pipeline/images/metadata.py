"""Metadata of image files: it never decides whether pixels can be decoded. Only the orientation is read from it.

Pillow parses metadata that no pixel depends on, and refuses some files for it. The functions here leave such metadata
out: from a PNG always, from a JPEG or a TIFF where Pillow refuses the file as it is.
"""

import itertools
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from PIL import ExifTags, Image

PNG, JPEG, TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"II*\0", b"MM\0*")
"""The first bytes of a file of each format."""
TURNS: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
"""EXIF orientation → what makes the stored image upright. An image of any other orientation is taken as stored."""
EXIF = b"Exif\0\0"
INTEGERS = MappingProxyType({1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"})
"""Types of EXIF values that hold an integer, and how `struct` reads them."""
XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([0-9])")
ORIENTATION_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of PNG text chunks from which Pillow reads an orientation."""
LARGEST_TEXT = 2**19
"""Bytes of a text chunk that is read for an orientation. Pillow refuses texts of more than twice this."""
TRANSPARENCY_BYTES = MappingProxyType({0: 2, 2: 6})
"""Bytes of a PNG's transparent value, by colour type: grey and RGB. A palette has one byte for each entry, or fewer."""
APPLICATIONS, COMMENT, START_OF_SCAN = range(0xE0, 0xF0), 0xFE, 0xDA
"""Markers of a JPEG's segments."""
DECISIVE = MappingProxyType({0xE0: 14, 0xEE: 12})
"""Markers of JFIF and of Adobe, which decide over colours → the fewest bytes that libjpeg takes for them."""
PIXEL_TAGS = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332}
    | {338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)
"""TIFF tags on which pixels depend, and the orientation (274)."""
PRIVATE_TAG = 65000


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image: 1 (upright) where none is stored, or none that can be read.

    Only this tag is read. Pillow's parser loses it where a tag beside it is odd.

    Args:
        image: an image file whose header was read; a TIFF must be loaded, which makes it upright.
    """
    if image.format == "TIFF":
        return 1
    stored = _stored_orientation(_exif_of(image.info))
    if stored is None:
        text = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
        found = XMP_ORIENTATION.search(text.encode(errors="replace") if isinstance(text, str) else text)
        stored = int(found[1]) if found else 1
    return stored if stored in TURNS else 1


def _exif_of(info: Mapping[Any, Any]) -> bytes:
    """Return the EXIF of an image: the bytes of a small TIFF without pixels."""
    exif = info.get("exif")
    if not isinstance(exif, bytes):
        try:
            lines = str(info.get("Raw profile type exif", "")).split("\n")
            exif = bytes.fromhex("".join(lines[3:]))
        except ValueError:
            return b""
    while exif.startswith(EXIF):
        exif = exif.removeprefix(EXIF)
    return exif


def _stored_orientation(exif: bytes) -> int | None:
    """Return the value of the orientation tag in the first directory; None where there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    count = int.from_bytes(exif[start : start + 2], "little" if order == "<" else "big")
    stored = None
    for at in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", exif, at)
        if tag == ExifTags.Base.Orientation and values == 1 and kind in INTEGERS:
            (stored,) = struct.unpack_from(f"{order}{INTEGERS[kind]}", exif, at + 8)
    return stored


def without_metadata(body: bytes) -> Iterator[bytes]:
    """Yield a file in forms that have the same pixels and less metadata: first the one to try first.

    Args:
        body: an image file of any format.
    """
    if body.startswith(PNG):
        yield _png_of(body)
        return
    yield body
    if body.startswith(JPEG):
        yield _jpeg_of(body)
    elif body.startswith(TIFF):
        yield _tiff_of(body)


def _png_of(body: bytes) -> bytes:
    """Return a PNG with the chunks that pixels depend on, those that may hold its orientation, and no others."""
    kept, start, colour_type = [PNG], len(PNG), -1
    view = memoryview(body)
    while start + 8 <= len(body):
        stop = start + 12 + int.from_bytes(view[start : start + 4])
        name, data = bytes(view[start + 4 : start + 8]), view[start + 8 : stop - 4]
        if stop > len(body):  # cut short: the decoder decides
            kept.append(bytes(view[start:]))
            break
        if name == b"IHDR" and len(data) > 9:
            colour_type = data[9]
        if not name[0] & 0x20 or (_is_wanted(name, data, colour_type) and _has_its_crc(view[start:stop])):
            kept.append(bytes(view[start:stop]))
        start = stop
        if name == b"IEND":
            break
    return b"".join(kept)


def _is_wanted(name: bytes, data: memoryview, colour_type: int) -> bool:
    if name == b"tRNS":
        return len(data) >= TRANSPARENCY_BYTES.get(colour_type, 0)
    if name == b"eXIf":
        return True
    is_text = name in (b"tEXt", b"zTXt", b"iTXt") and len(data) <= LARGEST_TEXT
    return is_text and _is_orientation_text(name, bytes(data))


def _is_orientation_text(name: bytes, data: bytes) -> bool:
    """Say whether a text chunk may hold an orientation, is whole, and does not inflate to much."""
    keyword, *rest = data.split(b"\0", 1)
    if keyword not in ORIENTATION_TEXTS or not rest:
        return False
    if name == b"tEXt":
        return True
    if name == b"zTXt":
        return _inflates_to_little(rest[0][1:])
    is_packed, parts = rest[0][:1] == b"\1", rest[0][2:].split(b"\0", 2)
    return len(rest[0]) > 2 and len(parts) == 3 and (not is_packed or _inflates_to_little(parts[2]))


def _inflates_to_little(packed: bytes) -> bool:
    try:
        inflater = zlib.decompressobj()
        inflater.decompress(packed, LARGEST_TEXT)
        return not inflater.unconsumed_tail
    except zlib.error:
        return False


def _has_its_crc(chunk: memoryview) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def _jpeg_of(body: bytes) -> bytes:
    """Return a JPEG with those segments before its pixels that decide over them, and its orientation."""
    kept, exif, start = [body[:2]], b"", 2
    while start + 4 <= len(body) and body[start] == 0xFF and body[start + 1] not in (START_OF_SCAN, 0xFF):
        marker, stop = body[start + 1], start + 2 + int.from_bytes(body[start + 2 : start + 4])
        if marker not in (*APPLICATIONS, COMMENT) or stop - start - 4 >= DECISIVE.get(marker, 2**16):
            kept.append(body[start:stop])
        elif body[start + 4 : stop].startswith(EXIF):
            exif = exif or body[start + 4 + len(EXIF) : stop]
        start = stop
    return b"".join([kept[0], _orientation_segment(_stored_orientation(exif) or 1), *kept[1:], body[start:]])


def _orientation_segment(orientation: int) -> bytes:
    data = EXIF + struct.pack("<2sHIHHHII", b"II", 42, 8, 1, ExifTags.Base.Orientation, 4, 1, orientation) + bytes(4)
    return struct.pack(">BBH", 0xFF, 0xE1, len(data) + 2) + data


def _tiff_of(body: bytes) -> bytes:
    """Return a TIFF in whose first directory every tag that no pixel depends on is a private one of a single byte."""
    order = "<" if body.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", body, 4)
        (count,) = struct.unpack_from(f"{order}H", body, start)
        entries = [body[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
        kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in PIXEL_TAGS]
    except struct.error:
        return body
    numbers = itertools.count(PRIVATE_TAG)
    others = [struct.pack(f"{order}HHII", next(numbers), 1, 1, 0) for _ in range(count - len(kept))]
    return b"".join([body[: start + 2], *kept, *others, body[start + 2 + 12 * count :]])
