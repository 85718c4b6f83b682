"""Latency: images per second and peak memory of students and timm models, over resolutions and attention windows."""

import json
import platform
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from storage_schemas.format.errors import AbstractStillhouseError, Problem, SettingError, cause_text
from storage_schemas.objects.publish import write_whole
from trainer.downstream.latency_options import LatencyOptions
from trainer.export import load
from trainer.student.student import Student
from trainer.student.vit.backbone import VitBackbone

Run = Callable[[], Any]
"""Runs a case once, until its result is there."""
Say = Callable[[str], None]
Clock = Callable[[], float]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that is measured."""

    model: str
    resolution: int
    """Side of the images (pixels)."""
    window: int
    """Side of the attention windows (tokens); 0 for global attention."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured of one case."""

    case: Case
    milliseconds: float | None = None
    """Median time of a batch."""
    images_per_second: float | None = None
    weight_bytes: int | None = None
    """Bytes of the weights that run."""
    activation_bytes: int | None = None
    """Most bytes of other tensors at one time, while a batch runs; the pixels do not count."""
    reason: str = ""
    """Why the case cannot run; empty where it was measured."""


@final
class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations return while it is entered, and keeps their highest sum.

    For the CPU, where torch keeps no such count. What an operation allocates and frees within itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self._live, self._known = 0, 0, set[int]()

    def __torch_dispatch__(
        self, operation: Any, _types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = operation(*args, **(kwargs or {}))
        given = {_storage_key(value) for value in _pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in _pytree.tree_leaves(output):
            if isinstance(value, Tensor) and _storage_key(value) not in given:  # else a view, or written in place
                self._count(value)
        return output

    def _count(self, value: Tensor) -> None:
        storage, key = value.untyped_storage(), _storage_key(value)
        if key in self._known:
            return
        self._known.add(key)
        self._live += storage.nbytes()
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def _storage_key(value: Tensor) -> int:
    return value.untyped_storage()._cdata


def time_by_turns(
    runs: Mapping[Case, Run], *, rounds: int, warm_up: int, clock: Clock = time.perf_counter
) -> dict[Case, float]:
    """Return the median time of each run (s).

    In every round each case runs once. So a machine that slows down for a while slows all of them, and not one.

    Args:
        runs: what is timed.
        rounds: how often.
        warm_up: rounds before, which do not count.
        clock: returns the time (s).
    """
    times: dict[Case, list[float]] = {case: [] for case in runs}
    for number in range(warm_up + rounds):
        for case, run in runs.items():
            began = clock()
            run()
            if number >= warm_up:
                times[case].append(clock() - began)
    return {case: median(of_case) for case, of_case in times.items()}


def measure_latency(options: LatencyOptions, say: Say) -> list[Measurement]:
    """Measure every model at every resolution and window, and print a line for each.

    Args:
        options: models, sizes, device.
        say: receives the lines.

    Raises:
        SettingError: a model or the device does not exist, or no case can run.
        MissingError: a folder holds no finished student.
    """
    _require_device(options.device)
    models = {name: _open(name, options) for name in options.models}
    kind = getattr(torch, options.precision)
    at = {"dtype": kind, "device": options.device}
    pixels = {side: torch.zeros(options.batch, 3, side, side, **at) for side in options.resolutions}
    results: dict[Case, Measurement] = {}
    runs: dict[Case, Run] = {}
    with torch.inference_mode():
        for case in _cases(models, options):
            run = _runner(models[case.model], pixels[case.resolution], case.window)
            results[case] = _try_case(models[case.model], case, run)
            if not results[case].reason:
                runs[case] = run
        if not runs:
            raise SettingError(
                "latency", [Problem(place=_named(case), found=of_case.reason) for case, of_case in results.items()]
            )
        seconds = time_by_turns(runs, rounds=options.rounds, warm_up=options.warm_up)
    for case, median_time in seconds.items():
        speed = options.batch / median_time
        results[case] = replace(results[case], milliseconds=median_time * 1e3, images_per_second=speed)
    for line in table_lines(list(results.values())):
        say(line)
    if options.to is not None:
        write_whole(options.to, latency_json(list(results.values()), options).encode())
    return list(results.values())


def latency_json(measurements: Sequence[Measurement], options: LatencyOptions) -> str:
    """Return measurements as JSON, with all that they depend on."""
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor()
    settings = {name: getattr(options, name) for name in ("batch", "device", "precision", "heads", "rounds", "warm_up")}
    about = {**settings, "device_name": device, "threads": torch.get_num_threads()}
    about |= {"versions": {name: version(name) for name in ("stillhouse", "timm", "torch")}}
    cases = [asdict(of_case) for of_case in measurements]
    return json.dumps({**about, "measurements": cases}, indent=1, ensure_ascii=False)


def table_lines(measurements: Sequence[Measurement]) -> Iterator[str]:
    """Yield the lines of a table for a terminal."""
    width = max(len(of_case.case.model) for of_case in measurements)
    yield f"{'model'.ljust(width)}  pixels  window       ms  images/s  weights MB  activations MB"
    for of_case in measurements:
        case = of_case.case
        head = f"{case.model.ljust(width)}  {case.resolution:6}  {case.window or 'global':>6}"
        if of_case.reason:
            yield f"{head}  {of_case.reason}"
        else:
            yield (
                f"{head}  {of_case.milliseconds:7.1f}  {of_case.images_per_second:8.1f}  "
                f"{(of_case.weight_bytes or 0) / 1e6:10.1f}  {(of_case.activation_bytes or 0) / 1e6:14.1f}"
            )


def _require_device(device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingError("latency", [Problem(place=f"--device {device}", found="torch finds no GPU")])
    try:
        torch.device(device)
    except RuntimeError as error:
        raise SettingError("latency", [Problem(place=f"--device {device}", found="is no device of torch")]) from error


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Model:
    student: Student
    whole: nn.Module
    """The student with its heads; the student alone where they do not run."""
    teachers: Sequence[str]
    """Teachers whose heads run."""

    def __call__(self, pixels: Tensor, window: int) -> Any:
        if self.teachers:
            return self.whole(pixels, self.teachers, window=window or None)
        return self.student(pixels, window=window or None)


def _open(name: str, options: LatencyOptions) -> _Model:
    if Path(name).is_dir():
        exported = load(name)
        student, teachers = exported.student, tuple(exported.card["teachers"]) if options.heads else ()
        whole: nn.Module = exported.model if teachers else student
    else:
        student, teachers = Student(name.removeprefix("timm:")), ()
        whole = student
    whole.to(options.device, getattr(torch, options.precision)).eval()
    return _Model(student=student, whole=whole, teachers=teachers)


def _cases(models: Mapping[str, _Model], options: LatencyOptions) -> Iterator[Case]:
    for name, model in models.items():
        windows = options.windows if isinstance(model.student.backbone, VitBackbone) else (0,)
        for resolution in options.resolutions:
            yield from (Case(model=name, resolution=resolution, window=window) for window in windows)


def _runner(model: _Model, pixels: Tensor, window: int) -> Run:
    def run() -> None:
        model(pixels, window)
        if pixels.is_cuda:
            torch.cuda.synchronize()

    return run


def _try_case(model: _Model, case: Case, run: Run) -> Measurement:
    """Run a case once, and return its memory, or why it cannot run."""
    if case.resolution % model.student.stride:
        return Measurement(
            case=case, reason=f"{case.resolution} is not a multiple of {model.student.stride} px, a token"
        )
    try:
        run()
        return _memory(model, case, run)
    except torch.OutOfMemoryError:
        return Measurement(case=case, reason="does not fit into the memory of the device")
    except AbstractStillhouseError as error:
        return Measurement(case=case, reason=error.problems[0].found)
    except Exception as error:  # each backbone of timm has its own way to reject a size
        if isinstance(model.student.backbone, VitBackbone):
            raise
        return Measurement(case=case, reason=cause_text(error))


def _memory(model: _Model, case: Case, run: Run) -> Measurement:
    weights = list(model.whole.state_dict().values())
    if weights[0].is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        with PeakMemory() as memory:
            run()
        peak = memory.peak
    return Measurement(case=case, weight_bytes=sum(value.nbytes for value in weights), activation_bytes=peak)


def _named(case: Case) -> str:
    return f"{case.model} at {case.resolution} px" + (f", windows of {case.window}" if case.window else "")
