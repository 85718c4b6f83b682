"""Small caches of seeded noise, written by our own writer, whose every value a test can compute again."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from identities import features_identity, views_identity

from storage_schemas.format import layout
from storage_schemas.format.encodings import INT8_STEP, Coding, Encoding, as_stored
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import TeacherManifest, ViewSetManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS, phi_s_digest, to_stored
from storage_schemas.format.shard_format import ArraySpec, StoredType
from storage_schemas.format.tables import PLACEMENTS, VIEWS
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet, teacher_tokens
from storage_schemas.objects.publish import publish_group
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, array_record, commit, create_array, open_shard, write_table_part
from storage_schemas.small_arrays import write_small_arrays

PATCH = 16
SLOTS = 4
"""Row slots in a shard."""


def spec_of(name: str, dim: int, summary_dim: int | None, **more: Any) -> TeacherSpec:
    """Return a teacher that takes windows as they are, unless told."""
    settings = {"size_rule": "any", "native": 64} | more
    colours: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (1.0, 1.0, 1.0)}
    return TeacherSpec(
        name=name, model=f"tiny {name}", dim=dim, summary_dim=summary_dim, patch=PATCH, **settings, **colours
    )


class SmallCache:
    """A cache of seeded noise, and what is in it."""

    def __init__(
        self,
        folder: Path,
        counts: Mapping[str, int],
        *,
        margin: int = 1,
        rejected: Collection[tuple[str, int]] = (),
        encodings: Mapping[str, Encoding] | None = None,
    ) -> None:
        """Write the root and what it says of its views.

        Args:
            folder: where to.
            counts: view set → views drawn.
            margin: of every canvas (patches).
            rejected: view set and row slot of views that could not be cut.
            encodings: teacher → how its features are stored; `float16` for those that are not there.
        """
        self.store, self.rejected, self.encodings = Store(uri=str(folder)), set(rejected), encodings or {}
        shapes = {
            (view_set := ViewSet.parse(name)): ViewSetManifest(
                grid=ShardGrid(counts=(count,), rows_per_shard=SLOTS),
                geometry=CanvasGeometry(resolution=view_set.resolution, patch=PATCH, margin=margin),
            )
            for name, count in counts.items()
        }
        self.manifest = ViewsManifest(identity=views_identity("small"), sets=shapes)
        publish_group(self.store, "", {"format": layout.FORMAT_VERSION, "recipe": "small"})
        publish_group(self.store, "views", self.manifest.attributes())

    @property
    def shards(self) -> list[tuple[ViewSet, int]]:
        """Every shard of every view set."""
        return [
            (view_set, shard) for view_set, shape in self.manifest.sets.items() for shard in range(shape.grid.shards)
        ]

    def rows(self, view_set: ViewSet, shard: int) -> list[int]:
        """Return the row slots of a shard that hold a view."""
        slots = self.manifest.sets[view_set].grid.slots(shard)
        return [row for row in slots if (view_set.name, row) not in self.rejected]

    def canvas(self, view_set: ViewSet, row: int) -> np.ndarray:
        """Return the canvas of a view."""
        side = self.manifest.sets[view_set].geometry.side
        return _noise("canvas", view_set, row).integers(0, 256, (side, side, 3), dtype=np.uint8)

    def raw(self, spec: TeacherSpec, view_set: ViewSet, row: int) -> np.ndarray:
        """Return the tokens that a teacher gave for a view, in its own units."""
        tokens = teacher_tokens(spec, view_set, self.manifest.sets[view_set].geometry)
        noise = _noise(spec.name, view_set, row).normal(3, 2, (tokens, tokens, spec.dim))
        return noise.astype(np.float32)

    def summary(self, spec: TeacherSpec, view_set: ViewSet, row: int) -> np.ndarray:
        """Return the summary that a teacher gave for a view."""
        return _noise(f"{spec.name} summary", view_set, row).normal(size=spec.summary_dim).astype(np.float32)

    def offset(self, spec: TeacherSpec, view_set: ViewSet, row: int) -> list[int]:
        """Return where a teacher's window starts in the canvas (row, column; patches)."""
        margin = self.manifest.sets[view_set].geometry.margin
        return _noise(f"{spec.name} window", view_set, row).integers(0, margin + 1, 2).tolist()

    def phi_s(self, spec: TeacherSpec) -> PhiS:
        """Return a teacher's PHI-S map."""
        rotation, _ = np.linalg.qr(np.random.default_rng(spec.dim).normal(size=(spec.dim, spec.dim)))
        return PhiS(mean=np.arange(float(spec.dim)), rotation=rotation, scale=2.5)

    def write_views(self, view_set: ViewSet, shard: int) -> None:
        """Write and commit a shard of canvases."""
        rows = self.rows(view_set, shard)
        fixed = {"draw": 0, "sha256": "0" * 64, "flip": False, "image_height": 1, "image_width": 1}
        fixed |= dict.fromkeys(("left", "top", "width", "height"), 0.0)
        views = [fixed | {"row": row, "image": f"{row}.jpg", "split": split_of(row)} for row in rows]
        canvases = [self.canvas(view_set, row) for row in rows]
        self._write(
            ShardKey(unit=layout.views_unit(view_set), shard=shard, identity=self.manifest.digest),
            {layout.pixels_array(view_set): ("uint8", canvases)},
            self.manifest.sets[view_set].grid.rows,
            (layout.table_part("views", view_set.name, shard), pa.Table.from_pylist(views, VIEWS)),
        )

    def write_teacher(self, spec: TeacherSpec) -> TeacherManifest:
        """Write what a teacher's group says, and its PHI-S."""
        shapes = self.manifest.sets.items()
        tokens = {view_set: teacher_tokens(spec, view_set, shape.geometry) for view_set, shape in shapes}
        encoding = self.encodings.get(spec.name, "float16")
        identity = features_identity(spec, self.manifest.digest, encoding=encoding)
        manifest = TeacherManifest(spec=spec, identity=identity, tokens=tokens)
        phi_s, group = self.phi_s(spec), f"teachers/{spec.name}"
        publish_group(self.store, group, manifest.attributes())
        arrays = {"mean": phi_s.mean, "rotation": phi_s.rotation, "scale": np.array(phi_s.scale)}
        write_small_arrays(self.store, f"{group}/phi_s", arrays)
        publish_group(self.store, f"{group}/phi_s", {"sha256": phi_s_digest(phi_s)})
        return manifest

    def write_features(self, manifest: TeacherManifest, view_set: ViewSet, shard: int) -> None:
        """Write and commit a shard of a teacher's features."""
        rows, spec, none = self.rows(view_set, shard), manifest.spec, {"mosaic": None, "cell": None}
        encoding = self.encodings.get(spec.name, "float16")
        coding = Coding(encoding=encoding, step=INT8_STEP if encoding == "int8" else 0.0)
        stored = [to_stored(self.phi_s(spec), self.raw(spec, view_set, row)) for row in rows]
        arrays: dict[str, tuple[StoredType, list[np.ndarray]]] = {
            layout.spatial_array(view_set, spec.name): (encoding, [as_stored(entry, coding) for entry in stored])
        }
        if spec.summary_dim is not None:
            summaries = [self.summary(spec, view_set, row) for row in rows]
            arrays[layout.summary_array(view_set, spec.name)] = ("float32", summaries)
        places = [(row, *self.offset(spec, view_set, row)) for row in rows]
        placed = [none | {"row": row, "offset_row": top, "offset_col": left} for row, top, left in places]
        self._write(
            ShardKey(unit=layout.features_unit(view_set, spec.name), shard=shard, identity=manifest.digest),
            arrays,
            self.manifest.sets[view_set].grid.rows,
            (
                layout.table_part("placements", f"{spec.name}/{view_set.name}", shard),
                pa.Table.from_pylist(placed, PLACEMENTS),
            ),
        )

    def _write(
        self,
        key: ShardKey,
        arrays: Mapping[str, tuple[StoredType, list[np.ndarray]]],
        rows: int,
        table: tuple[str, pa.Table],
    ) -> None:
        records = []
        for path, (dtype, entries) in arrays.items():
            spec = ArraySpec(path=path, shape=(rows, *entries[0].shape), dtype=dtype, rows_per_shard=SLOTS)
            create_array(self.store, spec)
            with open_shard(self.store, spec, key.shard) as writer:
                writer.append_all(entries)
            records.append(array_record(writer, key))
        records.append(write_table_part(self.store, *table, key.shard * SLOTS, key))
        commit(self.store, key, records)


def split_of(row: int) -> str:
    """Return the split of a view: training views come first."""
    return "train" if row < 5 else "heldout"


def _noise(kind: str, view_set: ViewSet, row: int) -> np.random.Generator:
    return np.random.default_rng([*kind.encode(), view_set.resolution, row])
