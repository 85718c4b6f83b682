"""The photographs that ship inside scikit-image, laid out as a folder for the demo."""

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
    """Copy the photographs into a folder, leaving alone what is there.

    Returns:
        How many were copied.

    Raises:
        MissingError: scikit-image is not installed, or ships without one of them.
    """
    found = find_spec("skimage")
    if found is None or found.origin is None:
        fix = "pip install 'stillhouse[demo]', or set DATA to a folder of your own images"
        raise MissingError("scikit-image", [Problem(place="demo photographs", found="is not installed", fix=fix)])
    source, target = Path(found.origin).parent / "data", Path(folder)
    lacking = [
        Problem(place=str(source / name), found="is not there") for name in NAMES if not (source / name).is_file()
    ]
    if lacking:
        raise MissingError("demo photographs", lacking)
    target.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in NAMES if not (target / name).exists()]
    for name in wanted:
        shutil.copyfile(source / name, target / name)
    return len(wanted)
