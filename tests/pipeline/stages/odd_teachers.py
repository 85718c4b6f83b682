"""Teachers for tests, named as users name their own: `odd_teachers:Class`."""

import os
import signal
import time
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.teacher import Precision, SizeRule, TeacherSpec
from teachers.base import AbstractTeacher
from teachers.output import TeacherOutput
from teachers.quarter_mean import quarter_means
from teachers.upsamplers import AbstractUpsampler, SeenWindows

Images = Float[Tensor, "batch 3 height width"]


def _spec(name: str, *, patch: int, native: int, size_rule: SizeRule, dim: int = 12) -> TeacherSpec:
    return TeacherSpec(
        name=name,
        model=name,
        dim=dim,
        summary_dim=None,
        patch=patch,
        size_rule=size_rule,
        native=native,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def _quarters(images: Images, patch: int) -> TeacherOutput:
    return TeacherOutput(summary=None, spatial=quarter_means(images, patch))


@final
class CanvasSixteen(AbstractTeacher):
    """The oracle on a canvas whose patch is the student's, so that scales agree as well as grids."""

    declared = _spec("canvas-16", patch=16, native=384, size_rule="canvas")

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Average quarters."""
        return _quarters(images, 16)


@final
class FixedFourteen(AbstractTeacher):
    """The oracle at 168 px, patch 14: 12 × 12 tokens."""

    declared = _spec("fixed-14", patch=14, native=168, size_rule="fixed")

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Average quarters."""
        return _quarters(images, 14)


@final
class DirectFourteen(AbstractTeacher):
    """The oracle at any size, patch 14."""

    declared = _spec("direct-14", patch=14, native=224, size_rule="any")

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Average quarters."""
        return _quarters(images, 14)


@final
class Blend(AbstractUpsampler):
    """Half of the tiles, half of the whole."""

    weights_sha256 = "5" * 64

    def __init__(self, *, device: torch.device) -> None:
        self.half = torch.tensor(0.5, device=device)

    def upsample(self, seen: SeenWindows) -> Tensor:
        """Repeat the whole window's tokens, and mix."""
        assert seen.tiled is not None
        whole = seen.whole.repeat_interleave(seen.tiles, dim=1).repeat_interleave(seen.tiles, dim=2)
        return self.half * whole + (1 - self.half) * seen.tiled


@final
class NotANumber(AbstractTeacher):
    """The oracle, but for NaN in every third image."""

    declared = _spec("not-a-number", patch=16, native=128, size_rule="any")

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Average quarters and spoil some."""
        spatial = quarter_means(images, 16)
        spatial[2::3, 0, 0, 0] = torch.nan
        return TeacherOutput(summary=None, spatial=spatial)


@final
class Failing(AbstractTeacher):
    """Raises an error of its own, of a class that does not survive pickling."""

    declared = _spec("failing", patch=16, native=128, size_rule="any")

    class OddError(Exception):
        """Cannot be pickled: its constructor takes two arguments."""

        def __init__(self, left: str, right: str) -> None:
            super().__init__(f"{left}\n{right}")

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Fail."""
        raise self.OddError("an error", f"at {images.shape[-1]} px")


@final
class FailingToStart(AbstractTeacher):
    """Raises an error when it is built."""

    declared = _spec("failing-to-start", patch=16, native=128, size_rule="any")

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        raise FileNotFoundError(2, "no weights here", f"{spec.name}, {device}, {precision}")

    def features(self, images: Images) -> TeacherOutput:
        """Never asked."""
        raise NotImplementedError


@final
class FailingUpsampler(AbstractUpsampler):
    """Lacks memory."""

    def __init__(self, *, device: torch.device) -> None:
        self.device = device

    def upsample(self, seen: SeenWindows) -> Tensor:
        """Fail."""
        raise torch.OutOfMemoryError(f"CUDA out of memory.\nTried to allocate {seen.tiles}.00 GiB")


@final
class Constant(AbstractTeacher):
    """Says the same of everything."""

    declared = _spec("constant", patch=16, native=128, size_rule="any")

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Return ones."""
        return TeacherOutput(summary=None, spatial=torch.ones_like(quarter_means(images, 16)))


@final
class DeadChannels(AbstractTeacher):
    """The oracle, but for two channels that never change, one of them not at zero."""

    declared = _spec("dead-channels", patch=16, native=128, size_rule="any")

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Average quarters and silence two channels."""
        spatial = quarter_means(images, 16)
        spatial[..., 3], spatial[..., 7] = 0.0, 0.1
        return TeacherOutput(summary=None, spatial=spatial)


@final
class CanvasWithSummary(AbstractTeacher):
    """Declares a summary of a canvas on which many views lie."""

    declared = TeacherSpec(
        name="canvas-with-summary",
        model="none",
        dim=12,
        summary_dim=12,
        patch=16,
        size_rule="canvas",
        native=384,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Never asked."""
        raise NotImplementedError


@final
class Mortal(AbstractTeacher):
    """The oracle, whose process is killed at those forwards of anyone's that `MORTAL_DIES` names, and at no other.

    It counts in the folder `MORTAL_COUNTS`, where a file is made for each forward. From the forward `MORTAL_WAITS` on,
    each waits for a file `go` there.
    """

    declared = _spec("mortal", patch=16, native=128, size_rule="any")

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Average quarters, or die."""
        counts = Path(os.environ["MORTAL_COUNTS"])
        number = len(list(counts.glob("*-*")))
        (counts / f"{number}-{os.getpid()}").touch()
        if str(number) in os.environ.get("MORTAL_DIES", "").split():
            os.kill(os.getpid(), signal.SIGKILL)
        while number >= int(os.environ.get("MORTAL_WAITS", "999")) and not (counts / "go").exists():
            time.sleep(0.05)
        return _quarters(images, 16)
