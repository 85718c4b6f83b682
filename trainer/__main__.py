"""`python -m trainer COMMAND`: runs a command; an error of ours becomes one message and status 2."""

import sys
from collections.abc import Mapping, Sequence

from storage_schemas.command_line import Command, run_command, say
from trainer.options import USAGE, train_options


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Returns:
        Exit status: 0, or 2 with one message on standard error.
    """
    return run_command(COMMANDS, USAGE, arguments, package="trainer")


def train_student(arguments: Sequence[str]) -> None:
    """Train a student, or resume its training."""
    options = train_options(arguments)
    from trainer.run.train import train  # the help text does not need Parquet and Zarr

    train(options.settings, options.cache, options.folder, say)


def report(arguments: Sequence[str]) -> None:
    """Write the report on a cache and its students."""
    from trainer.report.options import report_options

    options = report_options(arguments)
    from trainer.report.make import make_report

    make_report(options.cache, options.runs, options.page, say)


def export(arguments: Sequence[str]) -> None:
    """Write a finished student in the format of another library."""
    from trainer.portable.options import export_options

    options = export_options(arguments)
    from trainer.export import load
    from trainer.portable.image_size import ImageSize
    from trainer.portable.write import write_portable

    size = ImageSize(height=options.height, width=options.width, window=options.window)
    say(f"export: {write_portable(load(options.student), options.format, size, options.to or options.student)}")


COMMANDS: Mapping[str, Command] = {"train": train_student, "report": report, "export": export}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
