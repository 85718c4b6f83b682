"""`python -m pipeline COMMAND`: reads the command line, runs a stage, turns refusals into one message and status 2."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.command_line import USAGE, Command, TeachersOptions, parse
from pipeline.export.options import export_options
from pipeline.features.options import extract_options
from pipeline.inspect.options import inspect_options, preview_options
from pipeline.plan.options import plan_options
from pipeline.recipes.options import photographs_options
from pipeline.stats.options import stats_options
from pipeline.verify.options import gc_options, verify_options
from pipeline.views.options import views_options
from storage_schemas.cache import Cache
from storage_schemas.format.errors import AbstractStillhouseError, CorruptionError, Problem, SettingError
from storage_schemas.objects.store import Store


def plan(arguments: Sequence[str]) -> None:
    """Say what a run would make and cost; write nothing that stays."""
    options, recipe = plan_options(arguments)
    from pipeline.plan.stage import say_plan

    say_plan(options, recipe, _say)


def views(arguments: Sequence[str]) -> None:
    """Cut the views that a recipe's teachers need."""
    options, recipe = views_options(arguments)
    from pipeline.inventory.teacher_maps import teacher_spec
    from pipeline.inventory.unfinished import unfinished_teachers
    from pipeline.views.stage import make_views, require_recipe

    cache = _cache(options.cache)
    manifest = require_recipe(cache, recipe, extend=options.extend)
    specs = [teacher_spec(choice) for choice in recipe.teachers]
    if manifest is not None:
        specs = unfinished_teachers(cache, manifest, recipe.teachers)
    make_views(cache, recipe, specs, options.data, options.run, _say, extend=options.extend)


def preview(arguments: Sequence[str]) -> None:
    """Write a contact sheet: canvases with the windows of every teacher and a student, and mosaics."""
    options, recipe = preview_options(arguments)
    from pipeline.inspect.contact_sheet import lay_out, write_sheet
    from pipeline.inspect.preview import Drawing, sheet_rows
    from pipeline.inventory.teacher_maps import teacher_spec
    from pipeline.views.stage import require_recipe

    cache, specs = _cache(options.cache), tuple(teacher_spec(choice) for choice in recipe.teachers)
    require_recipe(cache, recipe)
    drawing = Drawing(seed=recipe.views.seed, shifts=recipe.views.teacher_shifts, specs=specs)
    sheet = lay_out(sheet_rows(cache, drawing, options.canvases), [spec.name for spec in specs])
    write_sheet(sheet, Path(options.sheet))
    _say(f"preview: {sheet.width} x {sheet.height} pixels written to {options.sheet}")


def extract(arguments: Sequence[str]) -> None:
    """Run one teacher over the views, and store its features; cut the views first where some are missing."""
    options, recipe = extract_options(arguments)
    from pipeline.features.stage import make_features

    make_features(_cache(options.cache), recipe, options.choice, options.data, options.run, _say)


def stats(arguments: Sequence[str]) -> None:
    """Measure the stored features of one teacher, or of all, and print what was found."""
    options = stats_options(arguments)
    from pipeline.stats.facts import measured_facts
    from pipeline.stats.stage import measure_teachers
    from pipeline.stats.text import stats_lines

    cache = _cache(options.cache)
    teachers = [options.teacher] if options.teacher else cache.teachers()
    features = measure_teachers(cache, teachers, options.run, _say)
    _say("\n".join(stats_lines(*measured_facts(cache, features.values(), options.tolerance))))


def train(arguments: Sequence[str]) -> None:
    """Train a student on Ray."""
    from pipeline.training.options import train_options

    options = train_options(arguments)
    from pipeline.training.stage import train_on_ray  # here, so that other commands work where ray is not installed

    train_on_ray(options)


def inspect(arguments: Sequence[str]) -> None:
    """Say what is in a cache, or what is known of one view."""
    options = inspect_options(arguments)
    from pipeline.inspect.cache import inspect_cache
    from pipeline.inspect.text import cache_lines, view_lines
    from pipeline.inspect.view import ViewFacts, view_facts
    from pipeline.verify.problems import MALFORMED

    cache = _cache(options.cache)
    try:
        facts = view_facts(cache, options.view) if options.view else inspect_cache(cache, options.tolerance)
    except MALFORMED as error:
        found, fix = f"cannot be read: {type(error).__name__}: {error}", "`make verify` names all that is wrong"
        raise CorruptionError("cache", [Problem(place=cache.store.uri, found=found, fix=fix)]) from error
    if options.json:
        _say(json.dumps(asdict(facts), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        _say("\n".join(view_lines(facts) if isinstance(facts, ViewFacts) else cache_lines(facts)))


def verify(arguments: Sequence[str]) -> None:
    """Read everything that is committed, and say whether it is what was committed."""
    options = verify_options(arguments)
    from pipeline.verify.stage import verify_cache
    from pipeline.verify.text import verdict_lines

    cache = _cache(options.cache)
    verdict = verify_cache(cache, options)
    for line in verdict_lines(verdict):
        _say(line)
    if verdict.problems:
        raise CorruptionError(f"cache {cache.store.uri}", verdict.problems)


def export(arguments: Sequence[str]) -> None:
    """Take a subset of a cache to another place."""
    options = export_options(arguments)
    from pipeline.export.stage import export_cache, plan_export

    export_cache(plan_export(_cache(options.cache), _cache(options.to), options), options.run, _say)


def gc(arguments: Sequence[str]) -> None:
    """Say what a cache no longer needs; delete it when told."""
    options = gc_options(arguments)
    from pipeline.leases.claim import described
    from pipeline.leases.lease import WHOLE_LEASE, leased, list_claims
    from pipeline.recipes import recipe_of
    from pipeline.text_table import sized
    from pipeline.verify.leftovers import Leftover, delete, find_leftovers, spent_details, stale_uploads
    from storage_schemas.objects.pending_uploads import PendingUpload, abort_upload

    def find(cache: Cache) -> tuple[list[Leftover], list[PendingUpload], str]:
        views = cache.views_manifest()
        spent = spent_details(cache, views, recipe_of(options.recipe).teachers) if options.details and views else []
        found, uploads = [*spent, *find_leftovers(cache)], stale_uploads(cache, options.uploads_older_than)
        for one in found:
            _say(f"  {one.name}")
        for upload in uploads:
            _say(f"  {upload.name}: an upload that began at {upload.begun:%Y-%m-%d %H:%M} and never ended")
        counts = f"{len(found)} objects, {sized(sum(one.bytes for one in found))}"
        return found, uploads, counts + (f", and {len(uploads)} unfinished uploads" if uploads else "")

    cache = _cache(options.cache)
    cache.require()
    if options.delete:
        with leased(cache, WHOLE_LEASE, "gc") as lease:
            found, uploads, counts = find(lease.cache)
            delete(lease.cache, found)
            for upload in uploads:
                abort_upload(cache.store, upload)
        for name in lease.cleared:
            _say(f"gc: {name}, of a run that has ended, deleted")
        _say(f"gc: {counts}, deleted")
    else:
        *_, counts = find(cache)
        for claim in list_claims(cache.store):
            if claim.stale:
                _say(f"gc: {claim.name}, of a run that has ended, goes too")
            else:
                _say(f"gc: nothing can go now: {claim.lease} is being written by {described(claim)}")
        _say(f"gc: {counts}, can go; nothing is deleted without --delete")


def teachers(arguments: Sequence[str]) -> None:
    """Print the catalogue of teachers."""
    parse("teachers", TeachersOptions(), arguments)
    from teachers.table import terminal_table

    _say(terminal_table())


def photographs(arguments: Sequence[str]) -> None:
    """Lay out the demo's photographs."""
    folder = photographs_options(arguments).data
    from pipeline.recipes.demo_images import copy_photographs

    copied = copy_photographs(folder)
    _say(f"photographs: {f'{copied} copied to' if copied else 'all there in'} {folder}")


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
    "teachers": teachers,
    "photographs": photographs,
}


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
        return _refused(error)
    except OSError as error:
        if error.filename is None:
            raise
        found = f"{error.strerror}" if error.strerror else type(error).__name__
        return _refused(SettingError("file", [Problem(place=str(error.filename), found=found)]))
    return 0


def _refused(error: AbstractStillhouseError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


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
