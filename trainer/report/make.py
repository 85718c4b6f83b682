"""Making the report: read cache and runs, draw, write the page."""

from collections.abc import Callable
from pathlib import Path

from storage_schemas.cache import Cache
from storage_schemas.format.errors import Problem, SettingError, StorageError
from storage_schemas.objects.publish import write_whole
from storage_schemas.objects.store import Store
from trainer.data.source import open_source
from trainer.report.closing_table import closing_rows, closing_text
from trainer.report.curves import run_plots
from trainer.report.evaluation_scores import evaluated_teachers
from trainer.report.page import StudentSection, render_page
from trainer.report.pictures import make_pictures
from trainer.report.results import find_runs
from trainer.report.student import predict
from trainer.report.views import pictured_views
from trainer.run.metrics import teacher_facts

COLOURS = 8
"""Number of colours for teachers; a ninth teacher gets the colour of the first."""


def make_report(
    cache: str, runs: Path, page: Path, say: Callable[[str], None] = print, evaluations: Path | None = None
) -> None:
    """Write the page, and print the closing table and the path of the page.

    The same cache, runs and evaluations give the same bytes.

    Args:
        cache: URI of the cache.
        runs: folder of runs. If it holds none, the report is about the cache only.
        page: the HTML file. It appears whole or not at all.
        say: receives each line for the user.
        evaluations: folder of evaluated teachers and models, each in a subfolder; None for no folder.

    Raises:
        MissingError: there is no cache, or an earlier stage must still make something in it.
        IdentityError: a run belongs to another cache.
        SettingError: the page cannot be written, or the folder of evaluations holds no scores.
    """
    opened = Cache(store=Store(uri=cache))
    source, recipe = open_source(opened), opened.require()
    results, views = find_runs(runs, source), pictured_views(source)
    evaluated = evaluated_teachers(evaluations, [result.run.path for result in results]) if evaluations else []
    if not results:
        say(f"report: no run in {runs}; this report is about the cache only")
    colours = {name: number % COLOURS for number, name in enumerate(source.teachers)}
    rows = closing_rows(teacher_facts(source), results)
    students = [StudentSection(result=result, plots=run_plots(result, colours)) for result in results]
    pictures = make_pictures(source, views, [predict(result, source, views) for result in results], colours)
    _write(page, render_page(source, recipe, rows, students, pictures, colours, evaluated))
    for line in closing_text(rows).split("\n"):
        say(line)
    say(f"report: {page}")


def _write(page: Path, html: str) -> None:
    try:
        write_whole(page, html.encode())
    except StorageError as error:
        fix = "give the name of an .html file in a folder that can be written to"
        [problem] = error.problems
        raise SettingError("page", [Problem(place=str(page), found=problem.found, fix=fix)]) from error
