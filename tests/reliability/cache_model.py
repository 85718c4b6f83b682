"""The model of a tiny cache: a dictionary of its objects, and what follows from them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import xxhash
from references import References, named_by, part_of
from tiny_caches import MADE, TEACHERS, History

ROOT = "features.zarr/zarr.json"
VIEWS = "features.zarr/views/zarr.json"
LOG = "tables/shards/"
PARTIAL = ".partial"
PLAIN = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}, indent=1)
PLAIN_GROUP = {xxhash.xxh3_128(text.encode()).hexdigest() for text in (PLAIN, f"{PLAIN}\n")}
"""XXH3 of a group without attributes."""
OF_SHARDS = re.compile(
    r"features\.zarr/(views/[^/]+|teachers/[^/]+/(low|high)-\d+)/.*c/\d+/.*|tables/(views|rejected|placements)/.*"
)
"""Objects that count only where a commit record names them."""


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """What a command does to a cache."""

    writes: Mapping[str, str]
    """All objects that it may write, with the XXH3 that they then have."""
    completes: frozenset[str]
    """Those that lie there once it is done."""
    teacher: str = ""
    fitted: History = ()
    history: History = ()
    runs: tuple[History, ...] = ()


@final
@dataclass(kw_only=True)
class CacheModel:
    """What must lie in a cache."""

    references: References
    held: dict[str, str] = field(default_factory=dict)
    """XXH3 of every object in the cache, damaged or not, by name."""
    damage: dict[str, str] = field(default_factory=dict)
    """XXH3 that damaged or missing objects should have, by name."""
    history: History = ()
    """History of the views in the manifest; empty before there is one."""
    roster: set[str] = field(default_factory=set)
    """Teachers of the recipe."""
    fitted: dict[str, History] = field(default_factory=dict)
    """History of the views on which a teacher's PHI-S was fitted."""
    measured: dict[str, tuple[History, ...]] = field(default_factory=dict)
    """Histories of the views at which a teacher's features were measured, one after the other."""

    @property
    def sound(self) -> dict[str, str]:
        """The objects of the cache as if nothing were damaged."""
        return self.held | self.damage

    @property
    def committed(self) -> dict[str, str]:
        """The objects that commit records name, with their XXH3 in the records."""
        records = (sha for name, sha in self.sound.items() if name.startswith(LOG) and not name.endswith(PARTIAL))
        return {name: sha for record in records for name, sha in named_by(self.references.bodies[record]).items()}

    def named_by(self, record: str) -> dict[str, str]:
        """Return the objects that a commit record names."""
        return named_by(self.references.bodies[self.sound[record]])

    def at_rest(self) -> dict[str, str]:
        """Return the objects of an undisturbed cache of this history."""
        views = self.references.views(self.history) if self.history else {}
        objects = {name: sha for name, sha in views.items() if "fixed" in self.roster or "/detail" not in name}
        for teacher, fitted in self.fitted.items():
            objects |= self.references.features(teacher, fitted, self.history)
        for teacher, runs in self.measured.items():
            objects |= self.references.measured(teacher, self.fitted[teacher], runs)
        return objects

    # what commands do

    def cutting(self, history: History) -> Step:
        """Return the step of cutting the views of a history."""
        writes = self.references.views(history)
        waits = "fixed" in self.roster and (history != self.history or not self.is_complete("fixed"))
        completes = frozenset(name for name in writes if waits or "/detail" not in name)
        return Step(writes=writes, completes=completes, history=history)

    def extracting(self, teacher: str) -> Step:
        """Return the step of extracting a teacher; missing views are cut before."""
        history = self.history or MADE
        fitted = self.fitted.get(teacher, history)
        views, features = self.references.views(history), self.references.features(teacher, fitted, history)
        details = teacher == "fixed" and not self.is_complete(teacher)
        completes = {*features, *(name for name in views if details or "/detail" not in name)}
        writes = {**views, **features}
        return Step(writes=writes, completes=frozenset(completes), teacher=teacher, fitted=fitted, history=history)

    def measuring(self, teacher: str) -> Step:
        """Return the step of measuring a teacher."""
        runs = self.measured.get(teacher, ())
        runs = runs if runs[-1:] == (self.history,) else (*runs, self.history)
        writes = self.references.measured(teacher, self.fitted[teacher], runs)
        return Step(writes=writes, completes=frozenset(writes), teacher=teacher, runs=runs)

    # what is there

    def is_declared(self, teacher: str) -> bool:
        """Say whether a teacher has a manifest."""
        said = self.sound.get(f"features.zarr/teachers/{teacher}/zarr.json")
        return said is not None and said not in PLAIN_GROUP

    def is_complete(self, teacher: str) -> bool:
        """Say whether all features of a teacher are committed."""
        return (
            bool(self.history)
            and self.is_declared(teacher)
            and all(not lacking for _, lacking, _ in self.feature_units(teacher))
        )

    def feature_units(self, teacher: str) -> Iterator[tuple[str, int, int]]:
        """Yield the name of each unit of a teacher, how many of its shards are missing, and how many it has in all."""
        features = self.references.features(teacher, self.fitted.get(teacher, MADE), self.history)
        yield from self._units(features)

    def view_units(self) -> Iterator[tuple[str, int, int]]:
        """Yield the same for canvases, and for details of which any shard is committed."""
        views = self.references.views(self.history)
        yield from self._units({name: sha for name, sha in views.items() if "/detail/" not in name})
        if any("/detail/" in name for name in self._records(self.sound)):
            sets = {name.split("/")[2] for name in views if name.startswith("features.zarr/views/low")}
            if not self.is_declared("fixed"):
                sets = {
                    view_set
                    for view_set in sets
                    if f"features.zarr/views/{view_set}/detail/fixed/zarr.json" in self.sound
                }
            for unit in self._units({name: sha for name, sha in views.items() if "/detail/" in name}):
                if unit[0].split("/")[1] in sets:
                    yield unit

    def _units(self, objects: Mapping[str, str]) -> Iterator[tuple[str, int, int]]:
        records = self._records(objects)
        for unit in sorted({name.rpartition("/")[0] for name in records}):
            of = [name for name in records if name.rpartition("/")[0] == unit]
            yield unit.removeprefix(LOG), len(set(of) - self.sound.keys()), len(of)

    @staticmethod
    def _records(objects: Iterable[str]) -> set[str]:
        return {name for name in objects if name.startswith(LOG) and not name.endswith(PARTIAL)}

    def unfinished(self) -> set[tuple[str, int, int]]:
        """Return what `verify` must list as unfinished: units, with shards committed and shards in all."""
        if not self.history:
            return set()
        declared = [teacher for teacher in TEACHERS if self.is_declared(teacher)]
        views = [unit for unit in self.view_units() if "/detail/" not in unit[0] or not self.is_complete("fixed")]
        units = [*views, *(unit for teacher in declared for unit in self.feature_units(teacher))]
        left = {(name, shards - lacking, shards) for name, lacking, shards in units if lacking}
        for teacher in declared:
            if self.is_complete(teacher) and self.measured.get(teacher, ())[-1:] != (self.history,):
                left.add((f"teachers/{teacher}/stats", 0, 1))
        return left

    def claimed(self) -> set[str]:
        """Return the objects that something committed depends on: damage to any of them must be found."""
        records, metadata = self._records(self.sound), set[str]()
        units = {name.removeprefix(LOG).rpartition("/")[0] for name in records}
        for unit in units:
            parts = unit.split("/")
            metadata |= {ROOT, VIEWS} | {name for name in self.sound if name.startswith("tables/images/")}
            metadata |= {f"features.zarr/{'/'.join(parts[:depth])}/zarr.json" for depth in range(1, len(parts) + 1)}
            arrays = ("pixels/",) if len(parts) == 2 else ("spatial/", "summary/") if parts[0] == "teachers" else ("",)
            metadata |= {f"features.zarr/{unit}/{array}zarr.json" for array in arrays}
            if parts[0] == "teachers":
                metadata |= {
                    name for name in self.sound if name.startswith(f"features.zarr/teachers/{parts[1]}/phi_s/")
                }
        for teacher, runs in self.measured.items():
            metadata |= set(self.references.measured(teacher, self.fitted[teacher], runs))
        unlisted = {f"tables/images/{number:05d}.parquet" for number in range(len(self.history), 9)}
        claimed = records | self.committed.keys() | metadata - unlisted
        return {name for name in claimed & self.sound.keys() if not name.endswith(PARTIAL)}

    def leftovers(self) -> set[str]:
        """Return the objects that `gc` must find."""
        named = self.committed.keys() | self.seen()
        unnamed = {name for name in self.held if OF_SHARDS.fullmatch(name) and name not in named}
        unlisted = {f"tables/images/{number:05d}.parquet" for number in range(len(self.history), 9)}
        return {name for name in self.held if name.endswith(PARTIAL)} | unnamed | unlisted & self.held.keys()

    def seen(self) -> set[str]:
        """Return the objects of the views that committed features and details are of, whether or not a record names
        them.
        """
        whole = self.references.views(self.history) if self.history else {}
        seen = set[str]()
        for name in self._records(self.sound):
            *unit, part = name.removeprefix(LOG).split("/")
            record = f"{LOG}views/{unit[1] if unit[0] == 'views' else unit[2]}/{part}"
            seen |= named_by(self.references.bodies[whole[record]]).keys() if record in whole else set()
        return seen

    def declared(self) -> set[str]:
        """Return the objects that `gc` must never find."""
        kept = self.claimed() | self.seen()
        if self.history:
            kept |= {ROOT, *(name for name in self.references.views(self.history) if self._is_of_views(name))}
        for teacher in TEACHERS:
            if self.is_declared(teacher):
                metadata = self.references.features(teacher, self.fitted[teacher], self.history)
                kept |= {name for name in metadata if not OF_SHARDS.fullmatch(name)}
        return kept & self.sound.keys()

    @staticmethod
    def _is_of_views(name: str) -> bool:
        return (name.endswith("zarr.json") and "/detail" not in name) or name.startswith("tables/images/")

    # changes

    def took(self, now: Mapping[str, str], step: Step, *, whole: bool, killed: bool = False) -> None:
        """Check what a command left, and record it.

        Args:
            now: XXH3 of every object there is now.
            step: what it was to do.
            whole: whether it said that it did all of it.
            killed: whether it was killed.
        """
        gone = self.held.keys() - now.keys()
        assert not gone, f"gone: {gone}"
        for name in now.keys() - self.held.keys():
            if name.endswith(PARTIAL):
                assert killed, f"left behind: {name}"
            else:
                assert now[name] == step.writes.get(name) or self._is_begun(name, now), (
                    f"odd: {name}: {now[name]}, expected {step.writes.get(name)}"
                )
        for name in (name for name in self.held if now[name] != self.held[name]):
            emptied = "/stats/" in name and self._is_begun(name, now)  # no attributes while statistics change
            assert now[name] == step.writes.get(name) or emptied, f"changed: {name}"
        self.damage = {name: sha for name, sha in self.damage.items() if now.get(name) == self.held.get(name)}
        self.held = dict(now)
        if whole:
            lacking = {name for name in step.completes if self.sound.get(name) != step.writes[name]}
            assert not lacking, f"lacking: {sorted(lacking)}"
        self.settle(step)

    @staticmethod
    def _is_begun(name: str, now: Mapping[str, str]) -> bool:
        """Say whether an object is a group of a teacher without attributes."""
        return now[name] in PLAIN_GROUP and name.endswith("zarr.json") and part_of(name) != ""

    def settle(self, step: Step) -> None:
        """Record which results of a step exist now."""
        sound, teacher = self.sound, f"features.zarr/teachers/{step.teacher}"
        if step.history and sound.get(VIEWS) == step.writes[VIEWS]:
            self.history = step.history
        if step.fitted and sound.get(f"{teacher}/phi_s/zarr.json") == step.writes[f"{teacher}/phi_s/zarr.json"]:
            self.fitted[step.teacher] = step.fitted
        if step.runs and sound.get(f"{teacher}/stats/zarr.json") == step.writes[f"{teacher}/stats/zarr.json"]:
            self.measured[step.teacher] = step.runs
        self.forget()

    def forget(self) -> None:
        """Forget objects that no longer exist, and damage to objects that no commit record names any more."""
        committed = self.committed
        self.damage = {
            name: sha for name, sha in self.damage.items() if name in committed or not OF_SHARDS.fullmatch(name)
        }
        sound = self.sound
        if VIEWS not in sound:
            self.history = ()
        for known, group in ((self.fitted, "phi_s"), (self.measured, "stats")):
            for teacher in [*known]:
                said = sound.get(f"features.zarr/teachers/{teacher}/{group}/zarr.json")
                if said is None or said in PLAIN_GROUP:
                    del known[teacher]

    def remove(self, names: Iterable[str]) -> None:
        """Record that objects were deleted."""
        for name in names:
            self.held.pop(name, None)
            self.damage.pop(name, None)
        self.forget()
