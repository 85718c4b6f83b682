"""`evaluate`: every task on every view set and output, each measured once."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage_schemas.cache import Cache
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.near_names import did_you_mean
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.file_lock import locked
from trainer.downstream.chosen_views import chosen_sets, require_views
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.options import EvaluateOptions
from trainer.downstream.results import RESULTS, SMALLER, Results, Score, json_text, new_score, open_results, score_key
from trainer.downstream.score_table import table_text
from trainer.downstream.subjects import Subject, open_subject
from trainer.downstream.tasks import TASKS, Task


def evaluate(options: EvaluateOptions, say: Callable[[str], None]) -> list[Score]:
    """Measure every task that was not measured yet, and return the scores of all that were asked for.

    Args:
        options: what to measure.
        say: receives a line for each score.

    Raises:
        SettingError, MissingError, IdentityError, ContractError, CorruptionError: an input cannot be used; see the
            tasks, and the readers of features.
        BusyError: another process evaluates there.
    """
    require_options(options)
    settings = {task: TASKS[task].settings(options) for task in options.tasks}
    cache = Cache.open(options.cache)
    sets = chosen_sets(require_views(cache), options.sets)
    _require_comparable(options.tasks, sets)
    folder = results_folder(options)
    with locked(folder / "evaluate.lock", "evaluate"):
        subject = open_subject(options, cache, folder)
        results, found = open_results(folder / RESULTS, subject.identity), []
        for place, view_set in enumerate(sets):
            smaller = [name for name in sets[:place] if _resolution(name) < _resolution(view_set)]
            results, scores = _evaluate_set(subject, view_set, smaller, settings, results, say)
            found += scores
    return found


def scores_text(scores: Sequence[Score], options: EvaluateOptions) -> str:
    """Return the scores that were asked for as a table for a terminal, or as JSON."""
    name = options.teacher or options.student.name or options.student.resolve().name
    return json_text(scores) if options.json else table_text({name: scores})


def require_options(options: EvaluateOptions) -> None:
    """Refuse options that do not fit together.

    Raises:
        SettingError: it names every problem.
    """
    problems = []
    if not options.cache:
        problems.append(Problem(place="--cache", found="is not given", fix="make … CACHE=…"))
    if (options.student == Path()) == (not options.teacher):
        found = "neither is given" if not options.teacher else "both are given"
        problems.append(Problem(place="--student, --teacher", found=found, fix="give one of them"))
    if not options.tasks:
        problems.append(Problem(place="--tasks", found="names no task", fix=f"the tasks are {', '.join(TASKS)}"))
    for task in options.tasks:
        if task not in TASKS:
            problems.append(Problem(place=task, found="is not a task", fix=did_you_mean(task, TASKS)))
    for name, value, least in (("batch", options.batch, 1), ("window", options.window, 0)):
        if value < least:
            problems.append(Problem(place=f"--{name}", found=f"{value} is less than {least}"))
    if problems:
        raise SettingError("evaluate", problems)


def results_folder(options: EvaluateOptions) -> Path:
    """Return the folder of scores and features: the one that is given, else the student's, or one for the teacher."""
    if options.to != Path():
        return options.to
    return Path("out", "evaluation", options.teacher) if options.teacher else options.student


def _evaluate_set(
    subject: Subject,
    view_set: str,
    smaller: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    results: Results,
    say: Callable[[str], None],
) -> tuple[Results, list[Score]]:
    """Measure what is missing for one view set; return all scores, and those that were asked for, in order."""
    views, digests = subject.digests(view_set)
    depends = {
        (output, task): _compared(task, chosen, output, [subject.digests(name)[1] for name in smaller])
        for output in subject.outputs
        for task, chosen in settings.items()
        if smaller or isinstance(TASKS[task], Task)
    }
    keys = {(output, task): score_key(task, digests[output], chosen) for (output, task), chosen in depends.items()}
    missing: dict[str, list[str]] = {}
    for (output, task), key in keys.items():
        if key not in results.scores:
            missing.setdefault(output, []).append(task)
    needed = {output: {part for task in tasks for part in TASKS[task].needs} for output, tasks in missing.items()}
    for output, features in zip(missing, subject.features(view_set, needed) if needed else (), strict=True):
        for task in missing[output]:
            about: dict[str, Any] = {"task": task, "output": output, "view_set": view_set}
            about |= {"cache": subject.cache.store.uri, "views": views, "features": digests[output]}
            about |= {"settings": depends[output, task], "lower_is_better": list(TASKS[task].lower_is_better)}
            results = results.with_score(_measure(about, features, subject, smaller))
            scores = results.scores[keys[output, task]].scores
            told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            say(f"evaluate: {view_set}: {task} of {features.origin}: {told}")
    return results, [results.scores[key] for key in keys.values()]


def _compared(
    task: str, chosen: Mapping[str, Any], output: str, smaller: Sequence[Mapping[str, str]]
) -> Mapping[str, Any]:
    """Return what a score depends on beside its features; for a comparison, also the features of smaller view sets."""
    if isinstance(TASKS[task], Task):
        return chosen
    return {**chosen, SMALLER: [digests[output] for digests in smaller]}


def _measure(about: Mapping[str, Any], features: EvaluationFeatures, subject: Subject, smaller: Sequence[str]) -> Score:
    began, task = time.monotonic(), TASKS[about["task"]]
    if isinstance(task, Task):
        measured = task.measure(features, subject.options)
    else:
        needed = {about["output"]: task.needs}
        others = [found for name in smaller for found in subject.features(name, needed)]
        measured = task.compare([*others, features], subject.options)
    return new_score(about, measured, time.monotonic() - began)


def _require_comparable(tasks: Sequence[str], sets: Sequence[str]) -> None:
    """Refuse a comparison of a single resolution."""
    if len({_resolution(name) for name in sets}) > 1:
        return
    fix = "cut views at several resolutions, or name more view sets with --sets"
    problems = [
        Problem(place=task, found=f"{', '.join(sets)} has nothing to be compared with", fix=fix)
        for task in tasks
        if not isinstance(TASKS[task], Task)
    ]
    if problems:
        raise SettingError("evaluate", problems)


def _resolution(view_set: str) -> int:
    return ViewSet.parse(view_set).resolution
