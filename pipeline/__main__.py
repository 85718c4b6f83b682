"""`python -m pipeline COMMAND`: each command parses its arguments, then imports and runs its stage."""

import sys
from collections.abc import Mapping, Sequence

from pipeline.command_line import TeachersOptions, parse, usage
from pipeline.recipes import RECIPES
from pipeline.workers.interruption import interruptible, interruption_line, interruption_status
from storage_schemas.cache import Cache
from storage_schemas.command_line import Command, run_command, say
from storage_schemas.format.errors import CorruptionError
from storage_schemas.objects.dangling import refuse_dangling_link
from storage_schemas.objects.store import Store


def plan(arguments: Sequence[str]) -> None:
    """Say what a run would make and cost; write nothing that stays."""
    from pipeline.plan.options import plan_options

    options, recipe = plan_options(arguments)
    from pipeline.plan.stage import say_plan

    say_plan(options, recipe, say)


def views(arguments: Sequence[str]) -> None:
    """Cut the views of a recipe that are missing, and the details that its unfinished teachers need."""
    from pipeline.views.options import views_options

    options, recipe = views_options(arguments)
    from pipeline.inventory.teacher_maps import teacher_spec
    from pipeline.inventory.unfinished import unfinished_teachers
    from pipeline.views.stage import make_views, require_recipe

    cache = _cache(options.cache)
    manifest = require_recipe(cache, recipe, extend=options.extend)
    specs = [teacher_spec(choice) for choice in recipe.teachers]
    if manifest is not None:
        specs = unfinished_teachers(cache, manifest, recipe.teachers)
    make_views(cache, recipe, specs, options.data, options.run, say, extend=options.extend)


def preview(arguments: Sequence[str]) -> None:
    """Draw a contact sheet of a cache's views."""
    from pipeline.inspect.options import preview_options

    options, recipe = preview_options(arguments)
    from pipeline.inspect.stage import draw_sheet

    say(draw_sheet(_cache(options.cache), options, recipe))


def extract(arguments: Sequence[str]) -> None:
    """Run one teacher over the views, and store its features; cut the views first where some are missing."""
    from pipeline.features.options import extract_options

    options, recipe = extract_options(arguments)
    from pipeline.features.stage import make_features

    make_features(_cache(options.cache), recipe, options.choice, options.data, options.run, say)


def stats(arguments: Sequence[str]) -> None:
    """Measure the stored features of one teacher, or of all, and print what was found."""
    from pipeline.stats.options import stats_options

    options = stats_options(arguments)
    from pipeline.stats.facts import measured_facts
    from pipeline.stats.sizes import encoded_sizes, size_lines
    from pipeline.stats.stage import measure_teachers
    from pipeline.stats.text import stats_lines

    cache = _cache(options.cache)
    teachers = [options.teacher] if options.teacher else cache.teachers()
    features = measure_teachers(cache, teachers, options.run, say)
    for line in stats_lines(*measured_facts(cache, features.values(), options.tolerance)):
        say(line)
    if options.sizes:
        say("")
        for line in size_lines([size for teacher in features.values() for size in encoded_sizes(cache, teacher)]):
            say(line)


def train(arguments: Sequence[str]) -> None:
    """Train a student on Ray."""
    from pipeline.training.options import train_options

    options = train_options(arguments)
    from pipeline.training.stage import train_on_ray  # here, so that other commands work where ray is not installed

    train_on_ray(options)


def inspect(arguments: Sequence[str]) -> None:
    """Say what is in a cache, or what is known of one view."""
    from pipeline.inspect.options import inspect_options

    options = inspect_options(arguments)
    from pipeline.inspect.stage import facts_text

    for line in facts_text(_cache(options.cache), options).split("\n"):
        say(line)


def verify(arguments: Sequence[str]) -> None:
    """Read everything that is committed, and say whether it is what was committed."""
    from pipeline.verify.options import verify_options

    options = verify_options(arguments)
    from pipeline.verify.stage import verify_cache
    from pipeline.verify.text import verdict_lines

    cache = _cache(options.cache)
    verdict = verify_cache(cache, options)
    for line in verdict_lines(verdict, cache.store.uri):
        say(line)
    if verdict.problems:
        raise CorruptionError(f"cache {cache.store.uri}", verdict.problems)


def export(arguments: Sequence[str]) -> None:
    """Take a subset of a cache to another place."""
    from pipeline.export.options import export_options

    options = export_options(arguments)
    from pipeline.export.stage import export_cache, plan_export

    export_cache(plan_export(_cache(options.cache), _cache(options.to), options), options.run, say)


def gc(arguments: Sequence[str]) -> None:
    """List what a cache no longer needs; delete it when asked to."""
    from pipeline.verify.options import gc_options

    options = gc_options(arguments)
    from pipeline.verify.gc import collect_garbage

    collect_garbage(_cache(options.cache), options, say)


def drop(arguments: Sequence[str]) -> None:
    """List what a cache holds of one teacher; delete it when asked to."""
    from pipeline.verify.options import drop_options

    options = drop_options(arguments)
    from pipeline.verify.drop import drop_teacher

    drop_teacher(_cache(options.cache), options, say)


def compact(arguments: Sequence[str]) -> None:
    """Seal the commit log, so that a reader opens the cache with few requests."""
    from pipeline.compact.options import compact_options

    options = compact_options(arguments)
    from pipeline.compact.stage import compact_log

    compact_log(_cache(options.cache), options, say)


def teachers(arguments: Sequence[str]) -> None:
    """Print the catalogue of teachers, or what is known of one."""
    options = parse("teachers", TeachersOptions(), arguments)
    if options.in_cache:
        from teachers.source import name_in_cache

        say(name_in_cache(options.name) if ":" in options.name else options.name)
        return
    from teachers.table import described_teacher, terminal_table

    described = described_teacher(options.name, options.summary, options.size_rule) if options.name else ()
    for line in described or terminal_table().split("\n"):
        say(line)


def labels(arguments: Sequence[str]) -> None:
    """Write the labels of the images in DATA to a CSV file."""
    from pipeline.labels.options import labels_options

    options = labels_options(arguments)
    from pipeline.labels.stage import write_labels

    write_labels(options, say)


def text_vectors(arguments: Sequence[str]) -> None:
    """Write the vectors of class names or captions to a file."""
    from pipeline.labels.options import text_vectors_options

    options = text_vectors_options(arguments)
    from pipeline.labels.text_vectors import write_text_vectors

    write_text_vectors(options, say)


def photographs(arguments: Sequence[str]) -> None:
    """Lay out the demo's photographs."""
    from pipeline.recipes.options import photographs_options

    folder = photographs_options(arguments).data
    from pipeline.recipes.demo_images import copy_photographs

    copied = copy_photographs(folder)
    say(f"photographs: {f'{copied} copied to' if copied else 'all there in'} {folder}")


COMMANDS: Mapping[str, Command] = {
    "plan": plan,
    "views": views,
    "preview": preview,
    "extract": extract,
    "stats": stats,
    "train": train,
    "inspect": inspect,
    "verify": verify,
    "export": export,
    "gc": gc,
    "drop": drop,
    "compact": compact,
    "teachers": teachers,
    "labels": labels,
    "text-vectors": text_vectors,
    "photographs": photographs,
}

RESUMABLE = ("views", "extract", "stats", "export", "train", "gc", "drop", "compact")
"""Commands that write, and that do the rest when they are run again."""
RESUMED = ": what is committed is kept, and the same command does the rest"


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Returns:
        Exit status: 0, or with one message on standard error 2 (refused), 130 (Ctrl-C) or 143 (SIGTERM).
    """
    with interruptible():
        try:
            return run_command(COMMANDS, usage(RECIPES), arguments, package="pipeline")
        except KeyboardInterrupt:
            kept = RESUMED if arguments and arguments[0] in RESUMABLE else ""
            print(f"error: {interruption_line(kept)}", file=sys.stderr)
            return interruption_status()


def _cache(uri: str) -> Cache:
    store = Store(uri=uri)
    refuse_dangling_link(store)
    return Cache(store=store)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
