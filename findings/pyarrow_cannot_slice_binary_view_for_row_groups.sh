#!/usr/bin/env bash
# pyarrow 26.0.1: a struct with a `binary_view` field is written to Parquet whole, and not in row groups.
#
# Expected: `row_group_size` changes how a table is divided in the file, and nothing else.
# Seen: a table of structs {bytes: binary_view} is written when it is one row group. With a smaller `row_group_size` the writer slices the array and raises
# ArrowNotImplementedError. The same table with `binary` is written either way. Image columns of datasets are such structs, and large ones
# always have several row groups.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pyarrow==26.0.1
"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys

import pyarrow as pa
import pyarrow.parquet as pq


def written(kind, size):
    """What becomes of eight rows, `size` of them in a row group."""
    column = pa.array([{"bytes": bytes([row]) * 40, "path": None} for row in range(8)], pa.struct([("bytes", kind), ("path", pa.string())]))
    try:
        pq.write_table(pa.table({"image": column}), f"{sys.argv[1]}/x.parquet", row_group_size=size)
    except pa.ArrowException as error:
        return type(error).__name__
    return "written"


print("pyarrow", pa.__version__)
found = {(str(kind), size): written(kind, size) for kind in (pa.binary(), pa.binary_view()) for size in (8, 3)}
for (kind, size), what in found.items():
    print(f"{kind}, {size} rows a group: {what}")
holds = [*found.values()] == ["written", "written", "written", "ArrowNotImplementedError"]
print("as before" if holds else "CHANGED")
sys.exit(not holds)
PYTHON
