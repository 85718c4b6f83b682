"""What the errors of a file system mean: that an object is not there, that the cache is damaged, or neither."""

from storage_schemas.format.errors import AbstractStillhouseError, CorruptionError, MissingError, Problem, StorageError

ABSENT = (FileNotFoundError, NotADirectoryError)
"""What a file system raises where there is nothing of a name: neither it nor a folder above it."""


def is_of_the_system(error: BaseException) -> bool:
    """Say whether an error says nothing about what is stored: too many open files, no permission, a disk that fails.

    Libraries raise `OSError` without a number about bytes that they cannot parse: that one is about what is stored.
    """
    if isinstance(error, PermissionError | TimeoutError | ConnectionError):
        return True
    if not isinstance(error, OSError) or error.errno is None:
        return False
    return not isinstance(error, (*ABSENT, IsADirectoryError))


def refused(place: str, error: OSError) -> AbstractStillhouseError:
    """Return the error to raise where a file system does not return an object."""
    if isinstance(error, ABSENT):
        return MissingError("object", [Problem(place=place, found="is not there")])
    if isinstance(error, IsADirectoryError):
        return CorruptionError("object", [Problem(place=place, found="is a folder, and should be a file")])
    found, fix = f"cannot be read: {error.strerror or error}", "run the same command again when this is fixed"
    return StorageError("storage", [Problem(place=place, found=found, fix=fix)])
