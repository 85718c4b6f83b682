"""Making the report, from reading to writing."""

from collections.abc import Callable
from pathlib import Path

from storage_schemas.cache import Cache
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.publish import write_whole
from storage_schemas.objects.store import Store
from trainer.data.source import open_source
from trainer.report.closing_table import closing_rows, closing_text
from trainer.report.curves import run_plots
from trainer.report.page import StudentSection, render_page
from trainer.report.pictures import make_pictures
from trainer.report.results import find_runs
from trainer.report.student import predict
from trainer.report.views import pictured_views
from trainer.run.metrics import teacher_facts

COLOURS = 8
"""Colours that the page has for teachers; a ninth teacher would share the first."""


def make_report(cache: str, runs: Path, page: Path, say: Callable[[str], None] = print) -> None:
    """Write the page, and say the closing table and where the page is.

    The same cache and runs give the same bytes.

    Args:
        cache: URI of the cache.
        runs: folder of runs; without any in it, the report is on the cache alone.
        page: the HTML file, which appears whole or not at all.
        say: takes each line for the user.

    Raises:
        MissingError: no cache, or something in it that an earlier stage has yet to make.
        IdentityError: a run of another cache.
        SettingError: the page cannot be written there.
    """
    opened = Cache(store=Store(uri=cache))
    source, recipe = open_source(opened), opened.require()
    results, views = find_runs(runs, source), pictured_views(source)
    if not results:
        say(f"report: no run in {runs}: on the cache alone")
    colours = {name: number % COLOURS for number, name in enumerate(source.teachers)}
    rows = closing_rows(teacher_facts(source), results)
    students = [StudentSection(result=one, plots=run_plots(one, colours)) for one in results]
    pictures = make_pictures(source, views, [predict(one, source, views) for one in results], colours)
    _write(page, render_page(source, recipe, rows, students, pictures, colours))
    say(closing_text(rows))
    say(f"report: {page}")


def _write(page: Path, html: str) -> None:
    try:
        write_whole(page, html.encode())
    except OSError as error:
        fix = "give the name of an .html file in a folder that can be written to"
        problem = Problem(place=str(page), found=f"cannot be written: {error.strerror}", fix=fix)
        raise SettingError("page", [problem]) from error
