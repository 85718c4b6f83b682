"""Pixels that a decoder gets wrong without a word: each is right here, or the image is rejected."""

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import ViewsConfig
from pipeline.images.decoding import open_picture
from pipeline.images.libjpeg import spoilt_data
from pipeline.images.unusable import UnusableImageError

WIDTH, HEIGHT = 256, 32
RAMP = np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))
DEPTHS, ORDERS, POLARITIES, FILL_ORDERS = range(1, 17), "<>", (0, 1), (1, 2)


def decoded(body: bytes, **settings: Any) -> np.ndarray | str:
    """The pixels of an image, or the reason why it is rejected."""
    try:
        picture = open_picture(body, ViewsConfig(min_side=1, **settings))
        image, _ = picture.scaled_for((0, 0, picture.width, picture.height), max(picture.width, picture.height))
    except UnusableImageError as error:
        return error.reason
    return np.asarray(image).astype(int)


def packed(values: np.ndarray, depth: int, order: str, fill_order: int) -> bytes:
    """Samples as a TIFF stores them: of 16 bits in the file's byte order, of others bit by bit, each row in bytes."""
    if depth == 16:
        rows = values.astype(f"{order}u2").view(np.uint8)
    else:
        bits = values[:, :, None] >> np.arange(depth)[::-1] & 1
        rows = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1)
    if fill_order == 2:
        rows = np.packbits(np.unpackbits(rows[:, :, None], axis=2)[:, :, ::-1], axis=2)
    return rows.tobytes()


def tiff(data: bytes, depth: int, order: str = "<", polarity: int = 1, fill_order: int = 1, sample: int = 1) -> bytes:
    """A grey TIFF of one strip, tag by tag: for what Pillow reads and cannot write."""
    tags = [(256, WIDTH), (257, HEIGHT), (258, depth), (259, 1), (262, polarity), (266, fill_order), (273, None)]
    tags += [(277, 1), (278, HEIGHT), (279, len(data)), (339, sample)]
    start = 8 + 2 + 12 * len(tags) + 4
    # a long for every value: a short would lie in the upper half of the field in the other byte order
    fields = [struct.pack(f"{order}HHII", tag, 4, 1, start if value is None else value) for tag, value in tags]
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
    return head + b"".join(fields) + bytes(4) + data


def grey(depth: int, order: str, polarity: int, fill_order: int) -> bytes:
    """A ramp from black to white."""
    values = np.rint((RAMP if polarity else 1 - RAMP) * (2**depth - 1)).astype(np.uint32)
    return tiff(packed(values, depth, order, fill_order), depth, order, polarity, fill_order)


def test_a_ramp_of_grey_in_a_tiff_of_any_kind_is_a_ramp_or_rejected() -> None:
    right = set()
    for kind in itertools.product(DEPTHS, ORDERS, POLARITIES, FILL_ORDERS):
        found = decoded(grey(*kind))
        if isinstance(found, str):
            assert found == "unknown kind", kind
        else:
            step = 255 / (2 ** kind[0] - 1)
            assert np.abs(found - 255 * RAMP[:, :, None]).max() <= max(step / 2, 1) + 0.5, kind
            right.add(kind)
    wanted = {(depth, order, polarity, 1) for depth in (1, 2, 4, 8) for order in ORDERS for polarity in POLARITIES}
    assert right >= wanted | {(12, "<", 1, 1), (16, "<", 0, 1), (16, "<", 1, 1), (16, ">", 1, 1)}


def test_signed_samples_are_rejected() -> None:
    values = (np.rint(RAMP * 255) - 128).astype(np.int8)
    assert decoded(tiff(values.tobytes(), 8, sample=2)) == "unknown kind"


def colours() -> np.ndarray:
    """A picture of soft colours."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8))
    return np.asarray(coarse.resize((600, 400)))


KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_rows": 2},
    "no subsampling": {"subsampling": 0},
    "optimised": {"optimize": True, "quality": 60},
    "small": {"quality": 30},
}


def spoilt(body: bytes) -> dict[str, bytes]:
    """A JPEG cut short with its end mark put back, and with holes, at several places."""
    bodies = {}
    for place in (0.3, 0.5, 0.7, 0.9):
        at, hole = int(len(body) * place), len(body) // 12
        bodies[f"cut at {place}"] = body[:at] + b"\xff\xd9"
        for fill in (0x00, 0x55, 0xAA):
            bodies[f"{fill:#x} at {place}"] = body[:at] + bytes([fill]) * hole + body[at + hole :]
    return bodies


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_of_which_a_part_is_lost_is_rejected(kind: str, mode: str) -> None:
    file = io.BytesIO()
    Image.fromarray(colours()).convert(mode).save(file, "JPEG", **{"quality": 90} | KINDS[kind])
    sound = decoded(file.getvalue())
    assert not isinstance(sound, str)
    bodies = spoilt(file.getvalue())
    assert {name: decoded(body) for name, body in bodies.items()} == dict.fromkeys(bodies, "damaged")


def half() -> bytes:
    """A JPEG whose second half is lost."""
    file = io.BytesIO()
    Image.fromarray(colours()).save(file, "JPEG", quality=90)
    return file.getvalue()[: len(file.getvalue()) // 2] + b"\xff\xd9"


def test_a_rejected_jpeg_is_said_to_be_damaged_by_the_words_of_libjpeg() -> None:
    picture = open_picture(half(), ViewsConfig())
    with pytest.raises(UnusableImageError) as caught:
        picture.scaled_for((0, 0, 600, 400), 20)
    assert caught.value.detail == "libjpeg: Corrupt JPEG data: premature end of data segment"


@pytest.mark.parametrize("rules", ["lenient", "0.1"])
def test_other_rules_take_a_jpeg_as_libjpeg_fills_it_in(rules: str) -> None:
    found = decoded(half(), rules=rules)
    assert not isinstance(found, str)
    assert np.abs(found - colours())[:150].max() < 60 < np.abs(found - colours())[250:].max()


def test_warnings_about_a_header_do_not_count() -> None:
    file = io.BytesIO()
    Image.fromarray(colours()).save(file, "JPEG")
    body = bytearray(file.getvalue())
    assert body[6:11] == b"JFIF\0"
    body[11] = 9  # a version of JFIF that libjpeg warns of
    assert spoilt_data(bytes(body)) is None
    assert spoilt_data(bytes(body[:-200]) + b"\xff\xd9") is not None


def bitmap(alpha: np.ndarray) -> bytes:
    """A BMP of 32 bits with an alpha mask."""
    height, width = alpha.shape
    rows = np.dstack([colours()[:height, :width, ::-1], alpha])[::-1].astype(np.uint8).tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    head = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(rows), 2835, 2835, 0, 0) + masks
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(rows), 0, 0, 14 + len(head)) + head + rows


def test_a_bitmap_whose_alpha_is_zero_everywhere_is_opaque() -> None:
    alpha = np.zeros((200, 300))
    np.testing.assert_array_equal(decoded(bitmap(alpha)), colours()[:200, :300])
    assert (decoded(bitmap(alpha), rules="0.1") == 255).all()


def test_a_bitmap_with_any_alpha_is_composited_over_white() -> None:
    alpha = np.zeros((200, 300))
    alpha[100:] = 255
    expected = np.where(alpha[:, :, None] > 0, colours()[:200, :300], 255)
    np.testing.assert_array_equal(decoded(bitmap(alpha)), expected)


def test_a_cache_of_version_0_1_keeps_its_grey_of_12_bits() -> None:
    found = decoded(grey(12, "<", 1, 1), rules="0.1")
    assert not isinstance(found, str)
    assert found.max() == 16
