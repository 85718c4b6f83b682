"""`train`: open the cache, check the run, fit the student. A finished run is not trained again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem, SettingError
from storage_schemas.format.views import UNIFORM
from storage_schemas.objects.store import Store
from storage_schemas.read_cache import open_read_cache
from storage_schemas.rejected import rejected_line
from trainer.data.source import open_source
from trainer.run.processes import is_first, require_launcher
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder, read_json, require_run
from trainer.settings.config import TrainRecipe, under_rules_of
from trainer.settings.running import RunningSettings
from trainer.settings.stages import sets_of
from trainer.settings.unrecorded import unrecorded
from trainer.stopping import StopRequest
from trainer.weights.origin import find_weights

Say = Callable[[str], None]


def train(
    recipe: TrainRecipe, cache: str, folder: Path, say: Say = print, request: StopRequest | None = None
) -> RunFolder:
    """Train a student. A run that was interrupted resumes; a finished run is only reported as finished.

    Args:
        recipe: recipe of the run.
        cache: URI of the cache.
        folder: folder that keeps the run.
        say: receives each line for the user; it is called in the first training process only.
        request: whether a signal has asked this process to stop; None for a run that no signal stops.

    Returns:
        The run's folder, with the exported student.

    Raises:
        MissingError: the cache lacks something that an earlier stage makes, or the starting weights are not there.
        SettingError: a setting, a student or a view set that cannot be used.
        IdentityError: the folder holds a run with other settings, or of another cache.
        BusyError: another process trains in the folder.
        Stopped: a signal has stopped the run.
    """
    require_launcher(recipe.running.devices * recipe.running.nodes)
    place = RunFolder(path=folder)
    stored = read_json(place.identity) if place.identity.exists() else {}
    began_with = stored.get("recipe", recipe.identity())
    recipe, begun = under_rules_of(began_with, recipe), stored.get("cache")
    by_set = recipe.loss.balance == "view-set"
    opened = _open_cache(cache, recipe.running)
    source = open_source(
        opened, recipe.data.teachers, sets_of(recipe), begun, by_set=by_set, window_shards=recipe.data.window_shards
    )
    if recipe.data.student_shifts == "uniform":
        source = replace(source, student_shifts=UNIFORM)
    has_weights = place.checkpoint.exists() or place.card.exists()
    weights = find_weights(recipe.student_weights, recipe.student, stored if has_weights else None)
    run = TrainingRun(recipe=recipe, source=source, folder=place, weights=weights)
    _require_weighted_teachers(run)
    _require_heldout_views(run)
    require_run(run.folder, run.identity, run.accepted)
    say = say if is_first() else _silent
    for line in run.describe():
        say(line)
    if old := unrecorded(began_with):
        kept = ", ".join(f"{name} {value}" for name, value in old.items())
        say(f"train: this run began before some settings existed, and goes on as it began: {kept}")
    if rejected := sum(found.rejected for found in source.sets.values()):
        say(f"train: {rejected_line(source.cache.store.uri, rejected)}")
    if run.folder.is_finished(recipe.steps):
        say(f"train: {folder} is finished, nothing to do ({recipe.steps} steps)")
        return run.folder
    from trainer.run.fit import fit  # torch and Lightning take seconds to import; a finished run needs neither

    fit(run, say, request=request)
    say(f"train: {recipe.student} is in {run.folder.weights}; `trainer.load({str(folder)!r})` loads it")
    return run.folder


def plan(recipe: TrainRecipe, cache: str, say: Say = print) -> None:
    """Say what a step of a run needs, and train nothing.

    Args:
        recipe: recipe of the run.
        cache: URI of the cache.
        say: receives each line for the user.

    Raises:
        MissingError: the cache lacks something that an earlier stage makes.
        SettingError: a setting, a student or a view set that cannot be used.
    """
    by_set = recipe.loss.balance == "view-set"
    source = open_source(_open_cache(cache, recipe.running), recipe.data.teachers, sets_of(recipe), by_set=by_set)
    from trainer.run.step_plan import plan_step  # torch takes seconds to import

    for line in plan_step(recipe, source).lines():
        say(line)


def _open_cache(uri: str, settings: RunningSettings) -> Cache:
    store = Store(uri=uri)
    if not settings.read_cache:
        return Cache(store=store)
    return Cache(store=store, kept=open_read_cache(settings.read_cache, settings.read_cache_bytes, store))


def _silent(_: str) -> None:
    """Drop a line: only the first process speaks to the user."""


def _require_weighted_teachers(run: TrainingRun) -> None:
    if unknown := sorted(run.recipe.loss.teacher_weights.keys() - run.source.teachers.keys()):
        found, fix = "is not a teacher of this run", f"the teachers are {', '.join(run.source.teachers)}"
        problems = [Problem(place=name, found=found, fix=fix) for name in unknown]
        raise SettingError("loss.teacher_weights", problems)


def _require_heldout_views(run: TrainingRun) -> None:
    if run.recipe.patience and not run.is_scored:
        found, fix = "early stopping needs held-out views, and the cache was cut without any", "set patience to 0"
        raise SettingError("patience", [Problem(place=run.source.cache.store.uri, found=found, fix=fix)])
    if run.is_scored and (without := run.without_heldout()):
        fix = "cut views of more images or a larger held-out share, or train without scores: --running.evaluate False"
        problems = [
            Problem(place=name, found="has no held-out view to score a student on", fix=fix) for name in without
        ]
        raise MissingError("held-out views", problems)
