"""`python -m trainer COMMAND`: reads the command line, trains, turns refusals into one message and status 2."""

import sys
from collections.abc import Sequence

from storage_schemas.errors import AbstractStillhouseError, Problem, SettingError
from trainer.options import USAGE, train_options


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Returns:
        Exit status: 0, or 2 with one message on standard error.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    try:
        _run(arguments[0], arguments[1:])
    except AbstractStillhouseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(command: str, arguments: Sequence[str]) -> None:
    if command != "train":
        raise SettingError("command", [Problem(place=command, found="is no command", fix="there is train")])
    options = train_options(arguments)
    from trainer.train import train  # reading Parquet and Zarr is not needed to show the help

    train(options.settings, options.cache, options.folder, _say)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
