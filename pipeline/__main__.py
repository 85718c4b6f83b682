"""`python -m pipeline COMMAND`: reads the command line, runs a stage, turns refusals into one message and status 2."""

import sys
from collections.abc import Mapping, Sequence

from pipeline.options import USAGE, Command, extract_options, require, stats_options, views_options
from storage_schemas.cache import Cache
from storage_schemas.errors import AbstractStillhouseError, Problem, SettingError
from storage_schemas.store import Store


def views(arguments: Sequence[str]) -> None:
    """Cut the views that a recipe's teachers need."""
    options, recipe = views_options(arguments)
    from pipeline.stage_extract import teacher_spec
    from pipeline.stage_views import make_views

    specs = [teacher_spec(choice) for choice in recipe.teachers]
    make_views(_cache(options.cache), recipe, specs, options.data, options.run, _say)


def extract(arguments: Sequence[str]) -> None:
    """Run one teacher."""
    options, recipe = extract_options(arguments)
    from pipeline.stage_extract import extract_teacher, plan_extraction, teacher_spec
    from pipeline.stage_views import make_views, require_recipe, views_missing

    cache, spec = _cache(options.cache), teacher_spec(options.choice)
    manifest = require_recipe(cache, recipe)
    if manifest is None or views_missing(cache, manifest, [spec]):
        specs = {spec.name: spec} | {choice.name: teacher_spec(choice) for choice in recipe.teachers}
        make_views(cache, recipe, list(specs.values()), options.data, options.run, _say)
    extract_teacher(plan_extraction(cache, recipe, options.choice), options.run, _say)


def stats(arguments: Sequence[str]) -> None:
    """Measure one teacher's features, or all."""
    options = stats_options(arguments)
    from pipeline.stage_stats import measure_teachers

    cache = _cache(options.cache)
    cache.require()
    measure_teachers(cache, [options.teacher] if options.teacher else cache.teachers(), options.run, _say)


def photographs(arguments: Sequence[str]) -> None:
    """Lay out the demo's photographs."""
    from pipeline.options import named
    from pipeline.photographs import copy_photographs

    folder = named(arguments, "data", "")
    require("DATA", folder)
    copied = copy_photographs(folder)
    _say(f"photographs: {f'{copied} copied to' if copied else 'all there in'} {folder}")


COMMANDS: Mapping[str, Command] = {"views": views, "extract": extract, "stats": stats, "photographs": photographs}


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Returns:
        Exit status: 0, or 2 with one message on standard error.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    try:
        _command(arguments[0])(arguments[1:])
    except AbstractStillhouseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _command(name: str) -> Command:
    if name not in COMMANDS:
        fix = f"there are {', '.join(COMMANDS)}"
        raise SettingError("command", [Problem(place=name, found="is no command", fix=fix)])
    return COMMANDS[name]


def _cache(uri: str) -> Cache:
    return Cache(store=Store(uri=uri))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
