"""Errors in the code of a teacher or an upsampler: one message with the error and the line of code that raised it.

Other programs' classes can raise anything. An error that does not survive pickling, or that only a terminal on another
machine would show, does not reach the user under Ray; a message of ours does.
"""

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from storage_schemas.format.errors import AbstractStillhouseError, Problem, SettingError

LIBRARIES = (*{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}, "<")
"""Where files lie that are no user's own code."""


@contextmanager
def errors_of(subject: str) -> Iterator[None]:
    """Run another program's code; turn what it raises into one message.

    Args:
        subject: what runs, such as `teacher mine`.

    Raises:
        SettingError: the code raised an error that is not ours already.
    """
    try:
        yield
    except AbstractStillhouseError:
        raise
    except Exception as error:
        raise SettingError(subject, [_problem(error)]) from error


def _problem(error: Exception) -> Problem:
    lacks_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    fix = "lower --choice.batch, or use a device with more memory" if lacks_memory else "mend this code"
    text = " ".join(str(error).split())[:500]
    found = f"{type(error).__qualname__}: {text}" if text else type(error).__qualname__
    return Problem(place=_place(error), found=found, fix=f"{fix}; what is committed is kept")


def _place(error: Exception) -> str:
    """Return the line that raised an error, or that called the library which raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(LIBRARIES) and frame.filename != __file__]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}, in {frame.name}"
