"""What the commands of `pipeline` and `trainer` share: finding a command, and turning a refusal into one message."""

import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence

from storage_schemas.format.errors import AbstractStillhouseError, MissingError, Problem, SettingError
from storage_schemas.format.plain_text import one_line

Command = Callable[[Sequence[str]], None]
"""Takes the arguments after the command's name."""
REFUSED = 2
"""Exit status of a command that is refused."""
UNREAD = 128 + 13
"""Exit status where the reader of what is printed has gone, as `head` does: what a shell says of SIGPIPE."""
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "PIL": ("pipeline", "trainer"),
    "huggingface_hub": ("pipeline", "trainer"),
    "jinja2": ("trainer",),
    "lightning": ("trainer",),
    "ray": ("pipeline",),
    "safetensors": ("pipeline", "trainer"),
    "sklearn": ("trainer",),
    "timm": ("pipeline", "trainer"),
    "torch": ("pipeline", "trainer"),
    "torchvision": ("pipeline", "trainer"),
    "transformers": ("sam3",),
    "zarr": ("pipeline",),
}
"""Optional package, as it is imported → the extras of Stillhouse that install it."""


def run_command(commands: Mapping[str, Command], usage: str, arguments: Sequence[str], *, package: str) -> int:
    """Run a command of a package.

    Args:
        commands: every command, by name.
        usage: the help of the whole program.
        arguments: the command's name and its arguments.
        package: `pipeline` or `trainer`: the extra to install where several bring a package that is missing.

    Returns:
        Exit status: 0; 2 with one message on standard error; or 141, without one, where nobody reads what it prints.
    """
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(usage, flush=True)
            return 0 if arguments else REFUSED
        _run(_command(commands, arguments[0]), arguments[1:])
    except BrokenPipeError:
        if not _unread():
            raise
        return UNREAD
    except AbstractStillhouseError as error:
        return _refused(error)
    except ModuleNotFoundError as error:
        return _refused(missing_package(error, package))
    except OSError as error:
        if error.filename is None:
            raise
        found = f"{error.strerror}" if error.strerror else type(error).__name__
        return _refused(SettingError("file", [Problem(place=str(error.filename), found=found)]))
    return 0


def say(line: str) -> None:
    """Print a line for the user at once. Characters that could change the terminal are shown as escapes."""
    print(one_line(line), flush=True)


def missing_package(error: ModuleNotFoundError, package: str) -> MissingError:
    """Return the refusal for an optional package that is not installed.

    Args:
        error: what its import raised.
        package: whose command imports it.

    Raises:
        ModuleNotFoundError: `error`, where the module is no optional package of ours.
    """
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        raise error
    extra = package if package in EXTRAS[name] else EXTRAS[name][0]
    fix = f"pip install 'stillhouse[{extra}]'"
    return MissingError("a package", [Problem(place=name, found="this command needs it: not installed", fix=fix)])


def option_value(arguments: Sequence[str], name: str, default: str) -> str:
    """Return the value of `--name value` or `--name=value`, before the whole command line is parsed.

    The defaults of the other settings depend on such an option. The last one counts.
    """
    value = default
    for position, argument in enumerate(arguments):
        if argument == f"--{name}" and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith(f"--{name}="):
            value = argument.partition("=")[2]
    return value


def _command(commands: Mapping[str, Command], name: str) -> Command:
    if name not in commands:
        fix = f"there are {', '.join(commands)}"
        raise SettingError("command", [Problem(place=name, found="is no command", fix=fix)])
    return commands[name]


def _run(command: Command, arguments: Sequence[str]) -> None:
    try:
        command(arguments)
    except SystemExit:  # after --help
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _unread() -> bool:
    """Whether nobody reads standard output any more. What is still in its buffer is then dropped."""
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, select.POLLOUT)
    if not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        return False
    # Python would write the buffer, and fail, once more at its end
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _refused(error: AbstractStillhouseError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return REFUSED
