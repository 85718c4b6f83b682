"""The settings of dense tasks. This module imports nothing heavy: the command line reads it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

Layout = Literal["same", "ade20k", "voc", "cityscapes"]
MapFormat = Literal["npy", "png"]
HeadKind = Literal["linear", "dpt"]
MergedTask = Literal["segmentation", "depth", "normals", "correspondence"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSettings:
    """Where the masks for segmentation are."""

    masks: Path = Path()
    """Folder of masks: PNG files with a class in each pixel."""
    layout: Layout = "same"
    """Where the mask of an image lies, and what its values mean. `same`: below the folder of masks at the image's key
    with the suffix .png; values are classes from 0, and 255 does not count. `ade20k` (annotations): the same path;
    values 1 to 150, and 0 does not count. `voc` (SegmentationClass): the same path; classes 0 to 20, and 255 does not
    count; ImageSets/Segmentation divides the images. `cityscapes` (gtFine): …_gtFine_labelIds.png; the 19 classes of
    the benchmark."""
    classes: int = 0
    """Number of classes. Only for `same`; the other layouts fix it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DepthSettings:
    """Where the maps of depth are, and which depths count."""

    maps: Path = Path()
    """Folder of depth maps: the path of a map is its image's key with another suffix."""
    format: MapFormat = "npy"
    """`npy`: numbers [height, width]. `png`: 16-bit grey values."""
    unit: float = 0.0
    """Metres of one step of the stored values: 0.001 for millimetres (NYU), 1/256 = 0.00390625 for KITTI, 1 for
    metres. Must be given."""
    least: float = 1e-3
    """Depths below do not count (m). 0, NaN and infinity never do."""
    most: float = 10.0
    """Depths above do not count (m). 10 for rooms (NYU), 80 for streets (KITTI)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NormalsSettings:
    """Where the maps of surface normals are."""

    maps: Path = Path()
    """Folder of normal maps: the path of a map is its image's key with another suffix. Their axes may be any; the
    student learns them."""
    format: MapFormat = "npy"
    """`npy`: vectors [height, width, 3]. `png`: RGB of 8 bits, where 0 is -1 and 255 is 1. A pixel with a vector that
    is shorter than 0.5, or black in a PNG, does not count."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CorrespondenceSettings:
    """Where the keypoints are, and which distances count as found."""

    pairs: Path = Path()
    """CSV file of keypoint pairs, a line for each: source, target (keys of two images), source_x, source_y, target_x,
    target_y (pixels of the upright images; 0 is the centre of the first pixel), and for `alphas` target_left,
    target_top, target_right, target_bottom (the object's box in the target image, pixels)."""
    alphas: tuple[float, ...] = (0.1, 0.05)
    """SPair's measure: shares of the larger side of the target's box. None for pairs without boxes: `--alphas` without
    a value."""
    pixels: tuple[float, ...] = ()
    """NAVI's measure: distances (pixels of the target image), such as 5 25 50."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DenseHeadSettings:
    """How the heads of dense tasks are built and trained. The tokens stay frozen."""

    head: HeadKind = "linear"
    """Head for depth and normals. `linear`: BatchNorm and a 1 × 1 convolution. `dpt`: the decoder of DPT, narrow, on
    the tokens of the last layer. Segmentation always has the linear one."""
    width: int = 64
    """Channels inside the `dpt` head."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """Optimiser; SGD has a momentum of 0.9."""
    learning_rate: float = 1e-3
    """Highest learning rate. It rises over the first tenth of the steps, and then falls to 0 as a cosine."""
    weight_decay: float = 1e-4
    """Weight decay."""
    steps: int = 2000
    """Steps of training."""
    batch: int = 8
    """Views in a step."""
    seed: int = 0
    """Seed of the initial weights and of the order of the views."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MergingSettings:
    """Merging of similar tokens of a view, as for the input of a language model."""

    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9)
    """Shares of the tokens that are merged into others. The highest possible one is 1 - 1 / stride²."""
    stride: int = 6
    """One token of every stride × stride tokens stays as a target. v2.5 table A10: the error is lowest with 6."""
    tasks: tuple[MergedTask, ...] = ()
    """Tasks that are also scored on merged tokens, put back at the places of the tokens that they stand for."""
