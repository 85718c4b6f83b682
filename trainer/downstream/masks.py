"""Index masks for segmentation, in the folders of ADE20K, VOC and Cityscapes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

import numpy as np
from jaxtyping import Int64
from PIL import Image

from storage_schemas.format.errors import MissingError, Problem, SettingError, first_problems
from trainer.downstream.dense_settings import SegmentationSettings

IGNORED = 255
"""Class of the pixels that do not count."""
MODES = ("1", "L", "P", "I;16", "I")
"""Pillow's modes of images with one number in each pixel."""

BROKEN = (OSError, SyntaxError, ValueError)
"""What Pillow raises for a damaged PNG file."""

MaskClasses = Int64[np.ndarray, "height width"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MaskLayout:
    """How the masks of a dataset are stored."""

    classes: int
    """Number of classes; 0 where the dataset does not fix it."""
    path: Callable[[str], PurePosixPath]
    """Takes an image's key; returns the path of its mask below the folder of masks."""
    to_classes: Mapping[int, int] | None
    """Value in the mask → class. A value that is missing does not count. None: values are classes, and 255 does not
    count."""
    lists: str = ""
    """Folder beside the folder of masks whose train.txt and val.txt list the images of both parts. Empty: the first
    folder of the keys divides the images."""


def _same_path(key: str) -> PurePosixPath:
    return PurePosixPath(key).with_suffix(".png")


def _cityscapes_path(key: str) -> PurePosixPath:
    path = PurePosixPath(key)
    return path.with_name(f"{path.stem.removesuffix('_leftImg8bit')}_gtFine_labelIds.png")


CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the 19 classes that Cityscapes' benchmark counts, in the order of their classes."""
LAYOUTS: Mapping[str, MaskLayout] = {
    "same": MaskLayout(classes=0, path=_same_path, to_classes=None),
    "ade20k": MaskLayout(
        classes=150, path=_same_path, to_classes={value: value - 1 for value in range(1, 151)} | {0: IGNORED}
    ),
    "voc": MaskLayout(classes=21, path=_same_path, to_classes=None, lists="ImageSets/Segmentation"),
    "cityscapes": MaskLayout(
        classes=19,
        path=_cityscapes_path,
        to_classes=dict.fromkeys(range(34), IGNORED) | {value: place for place, value in enumerate(CITYSCAPES_IDS)},
    ),
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """The masks of the images of a cache."""

    paths: Mapping[str, Path]
    """Key of each image that is used → its mask."""
    layout: MaskLayout
    classes: int
    """Number of classes."""

    def read(self, key: str) -> MaskClasses:
        """Return the class of every pixel of an image; `IGNORED` where it does not count.

        Raises:
            SettingError: the file is damaged, or a value is no class.
        """
        try:
            with Image.open(self.paths[key], formats=["PNG"]) as image:
                values = np.asarray(image).astype(np.int64)
        except BROKEN as error:
            problem = Problem(place=str(self.paths[key]), found=f"cannot be read: {error}")
            raise SettingError("segmentation", [problem]) from error
        if self.layout.to_classes is None:
            wrong = (values != IGNORED) & ((values < 0) | (values >= self.classes))
            classes = values
        else:
            table = np.full(max(self.layout.to_classes) + 1, -1)
            table[list(self.layout.to_classes)] = list(self.layout.to_classes.values())
            classes = table[np.clip(values, 0, len(table) - 1)]
            wrong = (values < 0) | (values >= len(table)) | (classes < 0)
        if wrong.any():
            found = f"holds the value {values[wrong].flat[0]}, which is none of the {self.classes} classes"
            fix = "choose the layout that the masks were written in, and for `same` the number of classes"
            raise SettingError("segmentation", [Problem(place=str(self.paths[key]), found=found, fix=fix)])
        return classes


def require_masks(settings: SegmentationSettings) -> None:
    """Refuse settings that are not possible, before any feature is computed.

    Raises:
        SettingError: no folder, or a number of classes that is missing or has no effect.
        MissingError: the folder or its lists do not exist.
    """
    layout = LAYOUTS[settings.layout]
    if settings.masks == Path():
        raise SettingError("segmentation", [Problem(place="masks", found="no folder of masks is given")])
    if not settings.masks.is_dir():
        raise MissingError("masks", [Problem(place=str(settings.masks), found="is no folder")])
    if layout.classes and settings.classes:
        found = f"{settings.classes} has no effect: the layout {settings.layout} has {layout.classes}"
        raise SettingError("segmentation", [Problem(place="classes", found=found, fix="leave it out")])
    if not layout.classes and not 2 <= settings.classes <= IGNORED:
        found = f"{settings.classes} is not from 2 to {IGNORED}"
        raise SettingError("segmentation", [Problem(place="classes", found=found, fix="give the number of classes")])
    missing = [path for path in listed_files(settings).values() if not path.is_file()]
    if missing:
        raise MissingError("masks", [Problem(place=str(path), found="does not exist") for path in missing])


def listed_parts(settings: SegmentationSettings, keys: Iterable[str]) -> Mapping[str, str] | None:
    """Return which images a dataset's lists name, as `train` or `test`; None for a dataset without lists."""
    if not LAYOUTS[settings.layout].lists:
        return None
    listed = {name: part for part, path in listed_files(settings).items() for name in path.read_text().split()}
    return {key: listed[stem] for key in keys if (stem := PurePosixPath(key).stem) in listed}


def find_masks(settings: SegmentationSettings, sizes: Mapping[str, tuple[int, int]]) -> Masks:
    """Find the mask of every image.

    Args:
        settings: where the masks are.
        sizes: key of each image → its height and width (pixels).

    Raises:
        MissingError: an image has no mask.
        SettingError: a mask has another size than its image, or more than one number in a pixel.
    """
    layout = LAYOUTS[settings.layout]
    paths = {key: settings.masks / layout.path(key) for key in sizes}
    if missing := [key for key, path in paths.items() if not path.is_file()]:
        fix = "give the folder in which the paths of masks agree with the keys of images, or another layout"
        problems = [Problem(place=key, found=f"has no mask {paths[key]}", fix=fix) for key in missing]
        raise MissingError("masks", first_problems(problems))
    if problems := [problem for key, path in paths.items() for problem in _mask_problems(path, key, sizes[key])]:
        raise SettingError("masks", first_problems(problems))
    return Masks(paths=paths, layout=layout, classes=layout.classes or settings.classes)


def _mask_problems(path: Path, key: str, size: tuple[int, int]) -> list[Problem]:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, (width, height) = image.mode, image.size
    except BROKEN as error:
        return [Problem(place=str(path), found=f"is no PNG file that can be read: {error}")]
    if mode not in MODES:
        found = f"has the mode {mode} of Pillow, not one number in each pixel"
        return [Problem(place=str(path), found=found, fix="write the classes as an index PNG")]
    if (height, width) != size:
        found = f"has {height} × {width} pixels, but its image {key} has {size[0]} × {size[1]}"
        return [Problem(place=str(path), found=found, fix="give the masks of the images that the cache was cut from")]
    return []


def listed_files(settings: SegmentationSettings) -> dict[str, Path]:
    """Return the files with a dataset's lists, by part; nothing for a dataset without lists."""
    folder = settings.masks.parent / LAYOUTS[settings.layout].lists
    return {"train": folder / "train.txt", "test": folder / "val.txt"} if LAYOUTS[settings.layout].lists else {}
