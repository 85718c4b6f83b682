"""One training run: its recipe, the part of the cache that it reads, and the folder that keeps it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from storage_schemas.format.identity import Identity
from trainer.data.source import Source
from trainer.run_folder import MAY_CHANGE, RunFolder
from trainer.settings.config import TrainRecipe
from trainer.weights.origin import Origin


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingRun:
    """One training run."""

    recipe: TrainRecipe
    source: Source
    """The cache, checked to be complete."""
    folder: RunFolder
    weights: Origin | None = None
    """Where the student's starting weights come from; None for random weights."""

    @property
    def identity(self) -> Identity:
        """Everything that the trained weights depend on: the recipe, and digests of the cache and starting weights."""
        start = {} if self.weights is None else {"starting_weights": self.weights.sha256}
        return {"recipe": self.recipe.identity(), "cache": self.source.identity, **start}

    @property
    def is_scored(self) -> bool:
        """Whether the student is scored on held-out views."""
        return self.recipe.running.evaluate and not self.source.no_heldout_asked

    def without_heldout(self) -> list[str]:
        """Return the teachers that have no held-out view."""
        sets = self.source.sets.values()
        scored = {name for found in sets if len(found.rows["heldout"]) for name in found.features}
        return [name for name in self.source.teachers if name not in scored]

    @property
    def accepted(self) -> frozenset[str]:
        """Settings that may differ from those that the run began with."""
        return MAY_CHANGE if self.recipe.running.accept_changes else frozenset()

    def describe(self) -> Iterator[str]:
        """Yield lines for the user: the student, the view sets, and which teachers have random weights."""
        yield f"train: student {self.recipe.student}, {self.recipe.steps} steps"
        for view_set, set_source in self.source.sets.items():
            counts = ", ".join(f"{len(rows)} {split}" for split, rows in set_source.rows.items())
            yield f"train: {view_set.name}: {counts} views; teachers {', '.join(set_source.features)}"
        if not self.is_scored:
            yield "train: the student is not scored: no held-out views"
        if self.source.left_out:
            yield (
                f"train: without {', '.join(self.source.left_out)} of the cache: not measured yet, or added after this "
                "run began"
            )
        random = [name for name, teacher in self.source.teachers.items() if teacher.manifest.spec.random_weights]
        if random:
            yield f"train: RANDOM WEIGHTS: {', '.join(random)} were never trained; this is a demonstration"
