"""Training one student from a cache: what to check first, and whether there is anything left to do."""

from collections.abc import Callable
from pathlib import Path

from storage_schemas.cache import Cache
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.store import Store
from storage_schemas.read_cache import open_read_cache
from trainer.data.source import Source, open_source
from trainer.run.processes import is_first
from trainer.run_folder import RunFolder, require_run
from trainer.settings.config import TrainRecipe
from trainer.settings.running import RunningSettings
from trainer.settings.stages import sets_of

Say = Callable[[str], None]


def train(recipe: TrainRecipe, cache: str, folder: Path, say: Say = print) -> RunFolder:
    """Train a student, or go on where a run in the folder was cut off, or say that it is finished.

    Args:
        recipe: the run.
        cache: URI of the cache.
        folder: where the run is kept.
        say: takes each line for the user.

    Returns:
        The run's folder, with the exported student.

    Raises:
        MissingError: the cache lacks something that an earlier stage makes.
        SettingError: a setting, a student or a view set that cannot be used.
        IdentityError: the folder holds a run of something else.
    """
    source = open_source(_opened(cache, recipe.running), recipe.data.teachers, sets_of(recipe))
    run = RunFolder(path=folder)
    _require_taught(recipe, source)
    identity = {"recipe": recipe.identity(), "cache": source.identity}
    require_run(run, identity)
    if not is_first():
        say = _nothing
    for line in _about(recipe, source):
        say(line)
    if run.card.exists():
        say(f"train: {folder} is finished, nothing to do ({recipe.steps} steps)")
        return run
    from trainer.run.fit import fit  # torch and Lightning take seconds to import, and a finished run needs neither

    fit(recipe, source, run, identity, say)
    say(f"train: {recipe.student} is in {run.weights}; `trainer.load({str(folder)!r})` brings it back")
    return run


def _opened(cache: str, settings: RunningSettings) -> Cache:
    store = Store(uri=cache)
    if not settings.read_cache:
        return Cache(store=store)
    return Cache(store=store, kept=open_read_cache(settings.read_cache, settings.read_cache_bytes, store))


def _nothing(_: str) -> None:
    """Stand in for a user in every process but the first."""


def _require_taught(recipe: TrainRecipe, source: Source) -> None:
    if unknown := sorted(recipe.loss.teacher_weights.keys() - source.teachers.keys()):
        found, fix = "is no teacher of this run", f"there are {', '.join(source.teachers)}"
        problems = [Problem(place=name, found=found, fix=fix) for name in unknown]
        raise SettingError("loss.teacher_weights", problems)


def _about(recipe: TrainRecipe, source: Source) -> list[str]:
    lines = [f"train: student {recipe.student}, {recipe.steps} steps"]
    for view_set, one in source.sets.items():
        counts = ", ".join(f"{len(rows)} {split}" for split, rows in one.rows.items())
        lines.append(f"train: {view_set.name}: {counts} views; teachers {', '.join(one.features)}")
    random = [name for name, teacher in source.teachers.items() if teacher.manifest.spec.random_weights]
    if random:
        lines.append(f"train: RANDOM WEIGHTS: {', '.join(random)} know nothing; this is a demonstration")
    return lines
