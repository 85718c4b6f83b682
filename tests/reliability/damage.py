"""Damaging objects of a tiny cache, and which messages that damage explains."""

from dataclasses import dataclass
from typing import final

import numpy as np
from array_rows import Place
from cache_model import LOG, ROOT, VIEWS, CacheModel
from hypothesis import note
from references import hashes, part_of
from tiny_caches import TinyCache

KINDS = ("flip", "cut", "empty", "lose", "swap", "lose a record")


def damaged(model: CacheModel, tiny: TinyCache, kind: str, which: int, where: int) -> int:
    """Damage an object of a cache, or two, and record it. Return how many were damaged."""
    whole = sorted(model.claimed() - model.damage.keys())
    if kind == "swap":
        return _swap(model, tiny, [name for name in whole if "/c/" in name], which)
    if kind == "lose a record":
        whole = [name for name in whole if name.startswith(LOG)]
    if not whole:
        return 0
    name = whole[which % len(whole)]
    body = (tiny.where / name).read_bytes()
    place = where % len(body.rstrip(b"\n"))  # without the end of its last line JSON is still the same document
    bodies = {
        "flip": body[:place] + bytes([body[place] ^ 1 << where % 8]) + body[place + 1 :],
        "cut": body[:place],
        "empty": b"",
    }
    return put(model, tiny, {name: bodies.get(kind)})


def _swap(model: CacheModel, tiny: TinyCache, shards: list[str], which: int) -> int:
    """Swap two shards of an array."""
    pairs = [
        (first, other)
        for number, first in enumerate(shards)
        for other in shards[number + 1 :]
        if first.partition("/c/")[0] == other.partition("/c/")[0] and model.held[first] != model.held[other]
    ]
    if not pairs or model.damage:
        return 0
    first, other = pairs[which % len(pairs)]
    return put(model, tiny, {first: (tiny.where / other).read_bytes(), other: (tiny.where / first).read_bytes()})


def put(model: CacheModel, tiny: TinyCache, bodies: dict[str, bytes | None]) -> int:
    """Replace the bytes of objects, or delete them for None, and record it."""
    for name, body in bodies.items():
        note(f"damaged: {name}")
        path = tiny.where / name
        path.unlink()
        if body is not None:
            path.write_bytes(body)
    now = hashes(tiny.where)
    for name in bodies:
        # a shard without its record, and statistics without their group, count as unfinished, not as damaged
        if name not in now and (name.startswith(LOG) or name.endswith("/stats/zarr.json")):
            model.remove([name])
        else:
            model.damage[name] = model.held[name]
    model.held = now
    return len(bodies)


def names(text: str, name: str, tiny: TinyCache) -> bool:
    """Say whether a message names an object: itself, or its array, with the shard where there are several."""
    array, _, number = name.removeprefix("features.zarr/").removesuffix("/c").partition("/c/")
    if name == ROOT and (f"{tiny.where}: holds no features.zarr" in text or f"{tiny.where}: holds a features" in text):
        return True
    if part_of(name).endswith("/stats") or "/phi_s/" in name:
        return array.removesuffix("/zarr.json") in text
    shard = f"{array} shard {number.partition('/')[0]}"
    return name.removeprefix("features.zarr/") in text or (bool(number) and shard in text)


@final
@dataclass(frozen=True, kw_only=True)
class Damage:
    """The damage of a cache, and what it explains."""

    model: CacheModel
    tiny: TinyCache

    def excuses(self, name: str) -> bool:
        """Say whether other damage keeps `verify` from seeing that an object is damaged."""
        others = self.model.damage.keys() - {name}
        records = {record for record in others if record.startswith(LOG)}
        by_record = any(name in self.model.named_by(record) for record in records)
        if name.startswith(LOG) or name in self.model.committed:
            return by_record
        teacher = part_of(name).removesuffix("/stats")
        manifest = f"features.zarr/teachers/{teacher}/zarr.json"
        same = any(part_of(damaged_name) == part_of(name) and part_of(name) for damaged_name in others)
        return VIEWS in others or manifest in others or same

    def explains(self, text: str, name: str) -> bool:
        """Say whether damage to an object explains a problem: it names that, or what cannot be read without it."""
        parts = name.split("/")
        manifest = name == VIEWS or (len(parts) == 4 and parts[1] == "teachers")
        orphan = text.startswith(f"{LOG}{'/'.join(parts[1:-1])}") and "no manifest defines them" in text
        return names(text, name, self.tiny) or (manifest and orphan)

    def spoils(self, place: Place) -> bool:
        """Say whether the bytes of a row, or of the index that leads to it, are damaged."""
        if place.object not in self.model.damage:
            return False
        sound = self.model.references.bodies[self.model.damage[place.object]].read_bytes()
        path = self.tiny.where / place.object
        now = path.read_bytes() if path.exists() else b""
        size = 16 * place.rows_per_shard + 4
        start, length = np.frombuffer(sound[-size:-4], "<u8").reshape(-1, 2)[place.row % place.rows_per_shard].tolist()
        return now[-size:] != sound[-size:] or now[start : start + length] != sound[start : start + length]
