#!/usr/bin/env bash
# Pillow 13.0.0: grey TIFFs of 12 bits come unscaled, and those of 16 bits with white at 0 come inverted.
#
# Expected: `convert("L")` of a grey TIFF shows black as 0 and white as 255, whatever its depth and polarity: with 8 bits it does.
# Seen: samples of 12 bits come in mode "I;16" as 0 to 4095, which every later step takes for 0 to 65535, so white is 16 of 255: a medical or
# industrial picture is black without an error. With 16 bits and PhotometricInterpretation 0 (white is zero) the samples are not inverted, where those
# of 8 bits are. The mode does not tell: it is "I;16" in all cases; only the tags BitsPerSample and PhotometricInterpretation do.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import io
import struct
import sys

import numpy as np
import PIL
from PIL import Image

WIDTH, HEIGHT = 16, 2
LONG, SHORT = 4, 3


def grey_tiff(bits, white_is_zero):
    """A TIFF whose left edge is black and whose right edge is white."""
    ramp = np.rint(np.linspace(0, 2**bits - 1, WIDTH)).astype(int)
    row = ramp[::-1] if white_is_zero else ramp
    digits = "".join(f"{sample:0{bits}b}" for sample in row)
    if bits == 16:
        packed = row.astype("<u2").tobytes()
    else:
        packed = bytes(int(digits[place : place + 8], 2) for place in range(0, len(digits), 8))
    data = packed * HEIGHT
    tags = {256: (LONG, WIDTH), 257: (LONG, HEIGHT), 258: (SHORT, bits), 259: (SHORT, 1),
            262: (SHORT, 0 if white_is_zero else 1), 273: (LONG, None), 277: (SHORT, 1), 278: (LONG, HEIGHT),
            279: (LONG, len(data))}
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, kind, 1, start if value is None else value) for tag, (kind, value) in tags.items()
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def edges(bits, white_is_zero):
    """The mode, and the samples of the left and the right edge."""
    try:
        image = Image.open(io.BytesIO(grey_tiff(bits, white_is_zero)))
    except PIL.UnidentifiedImageError:
        return "refused", None, None
    samples = np.asarray(image)
    return image.mode, int(samples[0, 0]), int(samples[0, -1])


print("Pillow", PIL.__version__)
found = {(bits, polarity): edges(bits, polarity) for bits in (8, 12, 16) for polarity in (False, True)}
for (bits, polarity), seen in found.items():
    print(f"{bits} bits, white is {'zero' if polarity else 'the highest'}: mode {seen[0]}, black {seen[1]}, white {seen[2]}")
holds = found[8, True] == ("L", 0, 255) and found[12, False] == ("I;16", 0, 4095) and found[16, True] == ("I;16", 65535, 0)
print("as before" if holds else "CHANGED")
sys.exit(not holds)
PYTHON
