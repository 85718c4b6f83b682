"""Which families of timm are teachers: `python -m pipeline.features.families docs/students.md` rewrites that table.

Each family is tried on one model of it. Every model is described on the meta device; those that are small enough run
with random weights, and their outputs are compared with the library's own.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from pipeline.phi_s.hadamard import construction
from storage_schemas.format.errors import AbstractStillhouseError
from storage_schemas.timm_families import FAMILIES
from teachers.build import build_teacher
from teachers.library import library_model
from teachers.table import Row, markdown

LARGEST_RUN = 30_000_000
"""Parameters of the largest model that is run; larger ones are described on the meta device alone."""
HEAD = ("family", "model", "C", "token (px)", "sizes (px)", "as a teacher")
MARKERS = re.compile(r"(<!-- table: teacher families -->\n).*?(<!-- end -->)", re.DOTALL)


def family_rows(families: Sequence[str] = tuple(FAMILIES)) -> list[Row]:
    """Return a heading and a row for each family.

    Args:
        families: modules of timm, of those in `FAMILIES`.
    """
    return [HEAD, *(_row(family, FAMILIES[family]) for family in families)]


def refreshed(page: str, rows: Sequence[Row]) -> str:
    """Return a page with another table of families."""
    return MARKERS.sub(lambda match: match[1] + markdown(rows) + match[2], page)


def _row(family: str, model: str) -> Row:
    try:
        known = library_model(f"timm:{model}")
    except AbstractStillhouseError as error:
        return (family, model, "", "", "", f"no: {_reason(error)}")
    spec = known.spec
    sizes = f"multiples of {spec.patch}" if spec.size_rule == "any" else f"{spec.native}"
    facts = (family, model, str(spec.dim), str(spec.patch), sizes)
    try:
        construction(spec.dim)
    except AbstractStillhouseError as error:
        return (*facts, f"no: PHI-S, {_reason(error)}")
    if known.parameters > LARGEST_RUN:
        return (*facts, f"described; {known.parameters / 1e6:.0f} M parameters")
    return (*facts, _run(model, spec.native))


def _run(model: str, side: int) -> str:
    """Run a model with random weights, and compare its map and its summary with the library's own."""
    try:
        teacher = build_teacher(f"timm:{model}", weights="random:1")
        images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
        output = teacher.encode(images)
    except AbstractStillhouseError as error:
        return f"no: {_reason(error)}"
    network: Any = teacher.network
    normed = library_model(f"timm:{model}").normed
    with torch.inference_mode():
        [expected] = network.forward_intermediates(images, indices=1, norm=normed, intermediates_only=True)
        pooled = network(images)
    if not torch.allclose(output.spatial, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5):
        return "no: its map is not that of forward_intermediates"
    if output.summary is None or output.summary.shape != pooled.shape:
        return f"runs; its own output has {tuple(pooled.shape[1:])} channels, choose another summary"
    close = torch.allclose(output.summary, pooled, rtol=1e-3, atol=1e-4)
    return "runs" if close else "runs; its own output is not its pooled features, choose another summary"


def _reason(error: AbstractStillhouseError) -> str:
    told = (f"{problem.place}: {problem.found} ({problem.fix})".removesuffix(" ()") for problem in error.problems)
    return "; ".join(told).replace("|", "/")


def require_all_families() -> None:
    """Refuse a table that leaves out a module of timm.

    Raises:
        SystemExit: timm has modules that `FAMILIES` does not name.
    """
    if unnamed := set(timm.models.list_modules()) - set(FAMILIES):
        sys.exit(f"error: storage_schemas/timm_families.py names no model of {', '.join(sorted(unnamed))}")


if __name__ == "__main__":
    require_all_families()
    target = Path(sys.argv[1])
    target.write_text(refreshed(target.read_text(), family_rows()))
