"""A disk that is full or cannot be written, where another library meets it: one message that names the place."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage_schemas.format.errors import Problem, StorageError
from storage_schemas.objects.retry_policy import RESUMES

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EACCES, errno.EPERM)
"""What a disk or its permissions are to blame for, and no fault of the program."""


@contextmanager
def disk_refusals(folder: Path) -> Iterator[None]:
    """Turn errors of a disk into one message.

    Args:
        folder: folder of the run: the place of an error that names none.

    Raises:
        StorageError: a disk is full, cannot be written or read, or fails.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        place = str(error.filename or folder)
        raise StorageError("storage", [Problem(place=place, found=str(error.strerror), fix=RESUMES)]) from error
