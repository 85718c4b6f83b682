"""The optional libraries that formats need."""

import importlib.util

from storage_schemas.format.errors import MissingError, Problem


def require_installed(subject: str, libraries: tuple[str, ...], extra: str) -> None:
    """Refuse a format whose libraries are not installed.

    Args:
        subject: what is missing as a whole, such as `ONNX`.
        libraries: the modules that are imported.
        extra: the extra of this package that installs them.

    Raises:
        MissingError: a library is not installed; each is named.
    """
    if missing := [name for name in libraries if importlib.util.find_spec(name) is None]:
        fix = f"pip install 'stillhouse[{extra}]'"
        raise MissingError(subject, [Problem(place=name, found="is not installed", fix=fix) for name in missing])
