"""The inspect and preview commands: gather facts and print them, or draw a contact sheet. A cache is only read."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.config import Recipe
from pipeline.inspect.cache import inspect_cache
from pipeline.inspect.options import InspectOptions, PreviewOptions
from pipeline.inspect.rejected import rejected_facts, rejected_lines
from pipeline.inspect.text import cache_lines, view_lines
from pipeline.inspect.view import view_facts
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MALFORMED, CorruptionError, Problem, cause_text
from storage_schemas.format.plain_text import one_line
from storage_schemas.rejected import rejected_line


def facts_text(cache: Cache, options: InspectOptions) -> str:
    """Return what is in a cache, what is known of one view, or which images were rejected, as text or as JSON.

    Args:
        cache: the cache.
        options: which view, or the rejected images, where not the whole cache is wanted; text or JSON.

    Raises:
        MissingError: there is no cache, or no such view.
        ContractError: the cache is of another format version, or parts of it do not belong together.
        CorruptionError: something in it cannot be read.
    """
    try:
        facts, lines = _gathered(cache, options)
    except MALFORMED as error:
        found, fix = f"cannot be read: {cause_text(error)}", "`make verify` names everything that is wrong"
        raise CorruptionError("cache", [Problem(place=cache.store.uri, found=found, fix=fix)]) from error
    if options.json:
        return json.dumps(asdict(facts), indent=1, ensure_ascii=False, allow_nan=False)
    return "\n".join(map(one_line, lines))


def _gathered(cache: Cache, options: InspectOptions) -> tuple[Any, Iterable[str]]:
    """Return the facts that are asked for, and the lines that tell them."""
    if options.view:
        view = view_facts(cache, options.view)
        return view, view_lines(view)
    if options.rejected:
        rejected = rejected_facts(cache)
        return rejected, rejected_lines(rejected)
    facts = inspect_cache(cache, options.tolerance)
    count = sum(view_set.rejected for view_set in facts.view_sets)
    return facts, chain(cache_lines(facts), [rejected_line(cache.store.uri, count)] if count else ())


def draw_sheet(cache: Cache, options: PreviewOptions, recipe: Recipe) -> str:
    """Write a contact sheet of a cache's views, and return the line that names the picture.

    Args:
        cache: the cache.
        options: how many canvases, and where the picture goes.
        recipe: the one that made the cache; its teachers' windows are drawn.

    Raises:
        MissingError: no view is committed yet.
        IdentityError: the cache is of another recipe.
    """
    from pipeline.inspect.contact_sheet import lay_out, write_sheet  # imports PIL, which `inspect` does not need
    from pipeline.inspect.preview import Drawing, sheet_rows
    from pipeline.inventory.teacher_maps import teacher_spec
    from pipeline.views.extension import under_rules_of
    from pipeline.views.stage import require_recipe

    specs = tuple(teacher_spec(choice) for choice in recipe.teachers)
    recipe = under_rules_of(require_recipe(cache, recipe), recipe)
    drawing = Drawing(seed=recipe.views.seed, shifts=recipe.views.teacher_shifts, specs=specs)
    sheet = lay_out(sheet_rows(cache, drawing, options.canvases), [spec.name for spec in specs])
    write_sheet(sheet, Path(options.sheet))
    return f"preview: {sheet.width} x {sheet.height} pixels written to {options.sheet}"
