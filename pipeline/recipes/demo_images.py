"""The demo's images: photographs that ship inside scikit-image, copied into a folder."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from storage_schemas.format.errors import MissingError, Problem

NAMES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "color.png",
    "grass.png",
    "gravel.png",
    "horse.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "microaneurysms.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)


def copy_photographs(folder: str) -> int:
    """Copy the photographs into a folder; files that are there already stay as they are.

    Returns:
        How many files were copied.

    Raises:
        MissingError: scikit-image is not installed, or lacks some of the photographs.
    """
    library = find_spec("skimage")
    if library is None or library.origin is None:
        fix = "pip install 'stillhouse[demo]', or set DATA to a folder of your own images"
        raise MissingError("scikit-image", [Problem(place="demo photographs", found="is not installed", fix=fix)])
    source, target = Path(library.origin).parent / "data", Path(folder)
    missing = [
        Problem(place=str(source / name), found="is not there") for name in NAMES if not (source / name).is_file()
    ]
    if missing:
        raise MissingError("demo photographs", missing)
    target.mkdir(parents=True, exist_ok=True)
    copied = [name for name in NAMES if not (target / name).exists()]
    for name in copied:
        shutil.copyfile(source / name, target / name)
    return len(copied)
