"""The same images in the forms people have them: a folder, tars, Parquet files, a list."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a tar of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, body in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(body)
            archive.addfile(header, io.BytesIO(body))
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], rows_per_group: int = 3) -> Path:
    """Write a Parquet file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=rows_per_group)
    return path


def write_list(path: Path, lines: Sequence[str]) -> Path:
    """Write a list of URIs."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
