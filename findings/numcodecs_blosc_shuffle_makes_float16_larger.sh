#!/usr/bin/env bash
# numcodecs 0.16.6 (Blosc 1 with zstd): shuffling float16 features.
#
# Expected: a shuffle helps numbers of two bytes, as it helps float32; bit shuffle helps more than byte shuffle.
# Seen, on normal numbers as float16 (entropy of the sixteen bits, taken as two bytes: about 1.7 bytes a number):
#   - bit shuffle gives larger chunks than no shuffle at levels 1 to 5;
#   - at zstd levels 1 and 3 byte shuffle gains nothing, at level 5 it gains more than 5 %;
#   - with blocks of 256 KiB byte shuffle gains more than 5 % at level 1 already: Blosc's own choice of block size decides.
# So the level of a Blosc codec is not only a trade of time for size: it changes what a shuffle is worth.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numcodecs==0.16.6 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import sys

import numcodecs
import numpy as np
from numcodecs import Blosc

numbers = np.random.default_rng(0).standard_normal(24 * 24 * 1024).astype(np.float16)
NONE, BYTES, BITS = Blosc.NOSHUFFLE, Blosc.SHUFFLE, Blosc.BITSHUFFLE


def size(level, shuffle, block=0):
    return len(Blosc("zstd", clevel=level, shuffle=shuffle, blocksize=block).encode(numbers)) / numbers.size


print(f"numcodecs {numcodecs.__version__}; bytes a number of {numbers.nbytes} bytes of float16")
for level in (1, 3, 5, 9):
    print(f"level {level}: " + ", ".join(f"{n} {size(level, s):.3f}" for n, s in (("none", NONE), ("bytes", BYTES), ("bits", BITS))))
print(f"level 1, bytes, blocks of 256 KiB: {size(1, BYTES, 2**18):.3f}")
seen = {
    "bit shuffle is larger than none at levels 1 to 5": all(size(level, BITS) > size(level, NONE) for level in (1, 3, 5)),
    "byte shuffle gains under 1 % at levels 1 and 3": all(size(level, BYTES) > 0.99 * size(level, NONE) for level in (1, 3)),
    "byte shuffle gains over 5 % at level 5": size(5, BYTES) < 0.95 * size(3, BYTES),
    "blocks of 256 KiB give that at level 1": size(1, BYTES, 2**18) < 0.95 * size(1, BYTES),
}
for text, holds in seen.items():
    print("as before:" if holds else "CHANGED:", text)
sys.exit(not all(seen.values()))
PYTHON
