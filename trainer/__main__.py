"""`python -m trainer COMMAND`: runs a command; an error of ours, or a signal, becomes one message and a status."""

import sys
from collections.abc import Mapping, Sequence

from storage_schemas.command_line import Command, run_command, say
from trainer.options import USAGE, train_options
from trainer.run.processes import is_first, is_started_by_first
from trainer.stopping import AGAIN, ALWAYS, Stopped, StopRequest

REQUEST = StopRequest()
"""Whether a signal has asked this program to stop."""


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Returns:
        Exit status: 0; 2 for a refusal; 128 plus the number of a signal that stopped the command. A status that is not
        0 comes with one message on standard error.
    """
    try:
        with REQUEST.on_signals(ALWAYS):
            return run_command(COMMANDS, USAGE, arguments, package="trainer")
    except Stopped as stopped:
        if is_first():
            print(f"{stopped} ({AGAIN})", file=sys.stderr)
        # Lightning kills the first process when one that it has started ends with another status than 0
        return 0 if is_started_by_first() else stopped.status


def train_student(arguments: Sequence[str]) -> None:
    """Train a student, or resume its training."""
    options = train_options(arguments)
    from trainer.run.train import plan, train  # the help text does not need Parquet and Zarr

    if options.dry_run:
        plan(options.settings, options.cache, say)
        return
    with REQUEST.on_signals(options.settings.running.stop_signals):
        train(options.settings, options.cache, options.folder, say, REQUEST)


def report(arguments: Sequence[str]) -> None:
    """Write the report on a cache and its students."""
    from trainer.report.options import report_options

    options = report_options(arguments)
    from trainer.report.make import make_report

    make_report(options.cache, options.runs, options.page, say, options.evaluations)


def list_runs(arguments: Sequence[str]) -> None:
    """List the runs of a folder."""
    from trainer.report.options import runs_options

    options = runs_options(arguments)
    from trainer.report.run_list import runs_text

    for line in runs_text(options.runs, json_wanted=options.json).split("\n"):
        say(line)


def export(arguments: Sequence[str]) -> None:
    """Write a finished student in the format of another library."""
    from trainer.portable.options import export_options

    options = export_options(arguments)
    from trainer.export import load
    from trainer.portable.image_size import ImageSize
    from trainer.portable.write import write_portable

    size = ImageSize(height=options.height, width=options.width, window=options.window)
    student, folder = load(options.student), options.to or options.student
    made = write_portable(student, options.format, size, folder, options.blocks, normalise=options.normalise)
    say(f"export: {made}")


def normalise(arguments: Sequence[str]) -> None:
    """Fit the normaliser of a student's blocks."""
    from trainer.normalise_options import normalise_options

    options = normalise_options(arguments)
    from storage_schemas.cache import Cache
    from trainer.export import load
    from trainer.normaliser import normalise_student
    from trainer.run_folder import RunFolder

    run, student = RunFolder(path=options.student), load(options.student).to(options.device)
    views = normalise_student(student, Cache.open(options.cache), run, options.batch)
    say(f"normalise: {run.blocks}, fitted on {views} held-out views")


def evaluate(arguments: Sequence[str]) -> None:
    """Measure what the features of a student or a teacher are good for."""
    from trainer.downstream.options import evaluate_options

    options = evaluate_options(arguments)
    from trainer.downstream.run import evaluate as measure
    from trainer.downstream.run import scores_text

    scores = measure(options, say if not options.json else lambda _: None)
    for line in scores_text(scores, options).split("\n"):
        say(line)


def latency(arguments: Sequence[str]) -> None:
    """Measure the speed and the memory of students and timm models."""
    from trainer.downstream.latency_options import latency_options

    options = latency_options(arguments)
    from trainer.downstream.latency import measure_latency

    measure_latency(options, say)


def list_families(arguments: Sequence[str]) -> None:
    """Try a model of each family of timm as a student."""
    from trainer.report.options import families_options

    options = families_options(arguments)
    from trainer.report.families_table import tell_families

    tell_families(options.families, options.page, say)


COMMANDS: Mapping[str, Command] = {
    "train": train_student,
    "runs": list_runs,
    "report": report,
    "evaluate": evaluate,
    "export": export,
    "families": list_families,
    "latency": latency,
    "normalise": normalise,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
