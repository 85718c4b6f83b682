"""Names of files: which are images, which are archives, and which are passed over."""

from pipeline.config import OLD_RULES, ImageRules
from pipeline.images.passed_over import COMPRESSED, HIDDEN_FILES, OTHERS, UNDECODED

OLD_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Endings of image names in version 0.1, in any case."""
SUFFIXES = OLD_SUFFIXES | {
    *(".apng", ".dib", ".j2c", ".jfif", ".jif", ".jpc", ".jpe", ".jpf", ".jpx", ".mpo", ".pbm", ".pgm", ".pnm")
}
"""Endings of image names, in any case. Files with other endings are passed over, except in a list, which may name any.
"""
ARCHIVE_SUFFIXES = frozenset({".tar", ".parquet"})
UNDECODED_SUFFIXES = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".hif", ".ico", ".jxl", ".nef", ".orf"}
    | {".pcx", ".psd", ".raf", ".rw2", ".svg", ".tga", ".xcf"}
)
"""Endings of images that no decoder here reads."""
COMPRESSED_SUFFIXES = frozenset({".7z", ".bz2", ".gz", ".rar", ".tbz2", ".tgz", ".txz", ".xz", ".zip", ".zst"})
HIDDEN_NAMES = frozenset({"@eadir", "__macosx", "$recycle.bin", "#recycle", "lost+found"})
"""Folders that systems keep for themselves, in lower case."""


def suffix_of(path: str) -> str:
    """Return the ending of a name, in lower case."""
    return f".{path.rpartition('.')[2].lower()}"


def is_image(name: str, rules: ImageRules) -> bool:
    """Say whether a name ends like that of an image."""
    return suffix_of(name) in (OLD_SUFFIXES if rules == OLD_RULES else SUFFIXES)


def is_hidden(name: str) -> bool:
    """Say whether a file or folder is hidden: its name begins with a dot, or systems keep it for themselves."""
    return name.startswith(".") or name.lower() in HIDDEN_NAMES


def has_hidden_part(path: str) -> bool:
    """Say whether a relative path is hidden, or leads through a hidden folder."""
    return any(is_hidden(part) for part in path.split("/") if part not in (".", ".."))


def kind_passed_over(name: str) -> tuple[str, str]:
    """Return as what kind a file is passed over that is neither image nor archive, and its ending."""
    suffix = suffix_of(name) if "." in name.rpartition("/")[2] else "no ending"
    if has_hidden_part(name):
        return HIDDEN_FILES, ""
    if suffix in UNDECODED_SUFFIXES:
        return UNDECODED, suffix
    return (COMPRESSED if suffix in COMPRESSED_SUFFIXES else OTHERS), suffix
