"""What a run of the pipeline can be told. A recipe is a function that returns one `Recipe`; see `pipeline/recipes`."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final, get_args

from storage_schemas.format.encodings import Encoding
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.shard_format import Compression
from storage_schemas.format.teacher import Precision
from storage_schemas.format.views import Partition, ShiftDistribution, Shifts


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsConfig:
    """Which views are cut from the images. Every field is part of the cache's identity."""

    seed: int = 0
    """Seed of every draw: crops, flips, resolutions, shifts, mosaic cells, the split."""
    low: tuple[int, ...] = (128, 192, 224, 256, 384, 432)
    """Resolutions (pixels) of the low partition; v4 section 2.2. None for no low partition."""
    low_proportions: tuple[float, ...] = ()
    """How often each of `low` is drawn, relative to the others; all alike when empty. Not published for v4."""
    high: tuple[int, ...] = (512, 768, 1024, 1152)
    """Resolutions (pixels) of the high partition; v4 section 2.2. None for no high partition."""
    high_proportions: tuple[float, ...] = ()
    """How often each of `high` is drawn, relative to the others; all alike when empty. Not published for v4."""
    high_share: float = 128 / (1024 + 128)
    """Share of all views that go to the high partition. v2.5 trains with 1024 low and 128 high images a step."""
    draws: int = 1
    """Views cut from each image."""
    patch: int = 16
    """Student patch (pixels): windows move by whole patches, and every resolution is a multiple of it."""
    margin: int = 2
    """Room for shifts: the canvas is larger than the window by this many patches. The distribution of shifts in v4 is
    not published; the public trainer moves a teacher by at most two patches."""
    shifts: ShiftDistribution = "uniform"
    """How teachers' windows lie about the margin: `uniform`, or `rounded-normal`, by whole patches about its middle, as
    in the public trainer, clipped to it. Not published for v4. The student's always are uniform."""
    shift_sd: float = 0.5
    """Width of `rounded-normal`: its standard deviation before rounding (patches). 0.5 in the public trainer, which
    leaves two thirds of the offsets of an axis in the middle."""
    crop: Literal["random", "centre"] = "random"
    """Which part of an image becomes a canvas: a box drawn by `area` and `aspect`, or the largest centred square."""
    area: tuple[float, float] = (0.25, 1.0)
    """Smallest and largest area of a canvas, as a share of the image's. Not published for v4."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest ratio of width to height of what becomes a square canvas. Not published for v4."""
    flip: float = 0.5
    """Share of views that are mirrored left to right. Features are those of the mirrored pixels: never flip in
    training."""
    heldout: float = 0.05
    """Share of images kept for evaluation, by hash of their key."""
    tokens_per_shard: int = 32768
    """Student tokens in a shard; sets the row slots of a shard by resolution. 32,768 tokens are 256 MB of DINOv3-7B in
    float16."""
    canvas_tokens: int = 72
    """Tokens along a canvas teacher's input: row slots of a shard are a multiple of k², so that mosaics fill it. SAM3
    has 72. 0 when no such teacher will come."""
    duplicates: Literal["keep", "drop"] = "keep"
    """What becomes of images whose bytes equal another's: they are reported, or all but the first by key are left out
    before views are drawn, for which every image is read once more."""
    min_side: int = 64
    """Images with a side shorter than this (pixels) are rejected."""
    max_aspect: float = 20.0
    """Images whose longer side is more than this many times the shorter are rejected."""
    max_pixels: int = 178_956_970
    """Images with more pixels than this are rejected undecoded: decompression bombs."""

    def __post_init__(self) -> None:
        _refuse("views settings", _views_problems(self))

    @property
    def teacher_shifts(self) -> Shifts:
        """How teachers' windows lie about the margin."""
        return Shifts(distribution=self.shifts, sd=self.shift_sd)

    def proportions(self, partition: Partition) -> dict[int, float]:
        """Return the resolutions (pixels) of a partition, each with how often it is drawn."""
        resolutions = getattr(self, partition)
        return dict(
            zip(resolutions, getattr(self, f"{partition}_proportions") or (1.0,) * len(resolutions), strict=True)
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherChoice:
    """One teacher of a recipe: which model, which weights, how its features are stored."""

    name: str
    """Short name: `TEACHER=` on the command line, `teachers/<name>` in the cache."""
    source: str
    """An entry of `teachers.catalogue`, or `module:Class`; see docs/adding_a_teacher.md."""
    weights: str = "hub"
    """`hub`, a local file or folder, or `random:<seed>` for demonstrations. A class of one's own brings its weights
    (`own`), or takes a path."""
    precision: Precision | None = None
    """Arithmetic of the forward. None for the catalogue's choice: bfloat16 weights for the 7B model, float32 weights
    under bfloat16 autocast for the others; `fp32` for a class of one's own."""
    layers: tuple[int, ...] = ()
    """Blocks, counted from 0, whose maps are cached beside the last one's, each as a teacher `<name>-block<n>` of its
    own. One forward gives them all."""
    tiles: int = 1
    """For a fixed teacher: along each side of a window of the high partition it gives so many times the tokens of a
    native input. 3 for SigLIP2 at 384 px beside a student at 1152 px."""
    upsampler: str = "tiles"
    """What makes them: `tiles`, each tile seen alone; `bilinear`, the whole window's tokens interpolated; or
    `module:Class` for a trained one (FeatSharp), from both. Without effect where `tiles` is 1."""
    encoding: Encoding = "float16"
    """Stored type of spatial features (PHI-S units). `int8` takes half the room of `float16`: numbers up to 8 standard
    deviations in steps of 0.063, whose rounding alone leaves a fidelity of about 3,000."""
    compression: Compression = "none"
    """Codec of spatial chunks."""
    batch: int = 16
    """Inputs in one forward (images, or mosaics). Part of the identity: kernels may differ by batch size."""

    def __post_init__(self) -> None:
        _refuse(f"choice of teacher {self.name!r}", _too_small(self, batch=1, tiles=1))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """How many views PHI-S is fitted on. Once fitted it is frozen."""

    views: int = 1000
    """Fewest training views, over all view sets; all there are where there are fewer."""
    tokens_per_channel: int = 20
    """Fewest tokens for each channel, so that the covariance is well determined."""

    def __post_init__(self) -> None:
        _refuse("calibration settings", _too_small(self, views=1, tokens_per_channel=1))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """How the work is carried. Only `device`, `compiled` and `threads` can move the rounding of what is stored."""

    executor: Literal["ray", "local"] = "ray"
    """`ray`: workers on this machine, or on the cluster of RAY_ADDRESS. `local`: in this process."""
    workers: int = 0
    """Most worker processes under ray; 0 for as many as the cluster's CPUs (or GPUs, where `gpus` is set) have room
    for. There are never more than tasks. A cluster that adds nodes on demand needs a number to add them for."""
    min_workers: int = 1
    """Fewest workers under ray: the run goes on, whatever is lost and added meanwhile, as long as there are so many."""
    patience: float = 300.0
    """How long fewer than `min_workers` are put up with, at the start and whenever some are lost (seconds). Then the
    run ends; what is committed is kept."""
    gpus: float = 0.0
    """GPUs for each worker of `extract`; a fraction shares one. Other stages take none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where teachers run: `auto` takes a GPU where there is one."""
    compiled: bool = False
    """Whether teachers run through `torch.compile`. Without effect on a CPU."""
    threads: int = 1
    """CPU threads of each worker. Under `executor=local` too, so that both give the same bytes."""
    max_rejected: float = 0.01
    """Share of all views whose images may be unusable. Once it is certain to be exceeded the stage ends with their
    names; what is committed is kept."""
    report: str = ""
    """Where the figures of each stage are kept for programs to read (`run.json`): a file, or any URI that fsspec
    reaches; nowhere when empty."""

    def __post_init__(self) -> None:
        least = _too_small(self, workers=0, min_workers=1, patience=0, gpus=0, threads=1)
        problems = [*least, *_not_shares(self, "max_rejected")]
        if 0 < self.workers < self.min_workers:
            found = f"{self.min_workers} is more than --run.workers, {self.workers}"
            problems.append(Problem(place="min_workers", found=found))
        _refuse("run settings", problems)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what is in a cache."""

    name: str
    """The recipe's name; kept in the cache."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    """Which views are cut."""
    teachers: tuple[TeacherChoice, ...] = ()
    """Which teachers look at them."""
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    """What PHI-S is fitted on."""

    def teacher(self, name: str) -> TeacherChoice:
        """Return the choice of that short name.

        Raises:
            SettingError: the recipe has no such teacher.
        """
        for choice in self.teachers:
            if choice.name == name:
                return choice
        names = ", ".join(choice.name for choice in self.teachers) or "none"
        found, fix = f"recipe {self.name} has no teacher {name!r}", f"it has {names}; or give module:Class"
        raise SettingError("TEACHER", [Problem(place=name, found=found, fix=fix)])


def views_settings(config: ViewsConfig) -> dict[str, Any]:
    """Return the settings as JSON-ready values for the identity."""
    values = asdict(config)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _refuse(subject: str, problems: Iterable[Problem]) -> None:
    if found := list(problems):
        raise SettingError(subject, found)


def _too_small(config: object, **least: float) -> Iterator[Problem]:
    for name, smallest in least.items():
        value = getattr(config, name)
        if not value >= smallest:
            yield Problem(place=name, found=f"{value} is less than {smallest}")


def _not_shares(config: object, *names: str) -> Iterator[Problem]:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            yield Problem(place=name, found=f"{getattr(config, name)} is not between 0 and 1")


def _views_problems(config: ViewsConfig) -> Iterator[Problem]:
    for partition in get_args(Partition):
        yield from _partition_problems(partition, getattr(config, partition), config)
    if not config.low and not config.high:
        yield Problem(place="low, high", found="name no resolution")
    yield from _too_small(
        config, draws=1, patch=1, margin=0, tokens_per_shard=1, canvas_tokens=0, min_side=1, max_pixels=1, max_aspect=1
    )
    yield from _not_shares(config, "high_share", "flip", "heldout")
    if not 0 < config.shift_sd < math.inf:
        yield Problem(place="shift_sd", found=f"{config.shift_sd} patches is no positive width")
    for name, most in (("area", 1.0), ("aspect", 100.0)):
        smallest, largest = getattr(config, name)
        if not 0 < smallest <= largest <= most:
            yield Problem(place=name, found=f"({smallest}, {largest}) is not a range within (0, {most:g}]")


def _partition_problems(partition: Partition, resolutions: tuple[int, ...], config: ViewsConfig) -> Iterator[Problem]:
    proportions = getattr(config, f"{partition}_proportions")
    if proportions and len(proportions) != len(resolutions):
        found = f"{len(proportions)} numbers for {len(resolutions)} resolutions"
        yield Problem(place=f"{partition}_proportions", found=found)
    if not all(0 < proportion < math.inf for proportion in proportions):
        yield Problem(place=f"{partition}_proportions", found=f"{proportions} are not all positive and finite")
    if len(set(resolutions)) < len(resolutions):
        yield Problem(place=partition, found=f"{resolutions} names a resolution twice")
    for resolution in resolutions:
        if resolution < config.patch or resolution % max(config.patch, 1):
            found = f"{resolution} px is not a multiple of the patch, {config.patch} px"
            yield Problem(place=partition, found=found)
