#!/usr/bin/env bash
# zarrs 0.2.3 under zarr-python 3.1.6: inner chunks of a shard carry CRC32C, and reads of a part of the shard do not compare them.
#
# Expected: an array whose inner codecs end in `crc32c` refuses damaged data through every pipeline, as zarr-python's own does.
# Seen: zarrs refuses when a whole shard is read. When a part is read, one entry or one whole inner chunk, it returns wrong numbers without an
# error. So whether damage is noticed depends on the selection: a loader that reads rows at random through zarrs checks nothing, although
# the metadata lists the checksum.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet zarr==3.1.6 zarrs==0.2.3 numcodecs==0.16.6 numpy==2.4.6
"$work/venv/bin/python" - "$work/array.zarr" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zarr
import zarrs  # registers its pipeline
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

OURS, THEIRS = "zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"
inner = ShardingCodec(chunk_shape=(4, 256), codecs=[BytesCodec(), Crc32cCodec()])
array = zarr.create_array(
    sys.argv[1], shape=(8, 256), chunks=(8, 256), dtype="float32", compressors=None, filters=None, serializer=inner
)
numbers = np.random.default_rng(0).standard_normal((8, 256)).astype(np.float32)
array[:] = numbers
shard = Path(sys.argv[1], "c/0/0")
sound = shard.read_bytes()


def noticed(pipeline, selection):
    """Count flipped bits, of 64 spread over the row, that a read refuses."""
    refused = 0
    for place in range(64):
        damaged = bytearray(sound)
        damaged[place * 16 + 1] ^= 1 << place % 8
        shard.write_bytes(damaged)
        with zarr.config.set({"codec_pipeline.path": pipeline}):
            try:
                zarr.open_array(sys.argv[1], mode="r")[selection]
            except Exception:
                refused += 1
    shard.write_bytes(sound)
    return refused


print("zarr", version("zarr"), "zarrs", version("zarrs"))
SELECTIONS = {"whole shard": slice(0, 8), "whole chunk": slice(0, 4), "one entry": slice(0, 1)}
found = {(name, what): noticed(pipeline, selection) for name, pipeline in (("zarr-python", OURS), ("zarrs", THEIRS))
         for what, selection in SELECTIONS.items()}
for (name, what), refused in found.items():
    print(f"{name}, {what}: {refused} of 64 flipped bits noticed")
holds = all(refused == (64 if name == "zarr-python" or what == "whole shard" else 0) for (name, what), refused in found.items())
print("as before" if holds else "CHANGED")
sys.exit(not holds)
PYTHON
