"""The quarter-mean function as teachers of every size rule, named as users name their own: `oracle_teachers:Class`."""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.teacher import Precision, SizeRule, TeacherSpec
from teachers.base import AbstractTeacher
from teachers.output import TeacherOutput
from teachers.quarter_mean import quarter_means

Images = Float[Tensor, "batch 3 height width"]


def _spec(name: str, *, patch: int, native: int, size_rule: SizeRule) -> TeacherSpec:
    return TeacherSpec(
        name=name,
        model=name,
        dim=12,
        summary_dim=None,
        patch=patch,
        size_rule=size_rule,
        native=native,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


class AbstractQuarters(AbstractTeacher):
    """The oracle at its own patch. It counts the inputs that it is shown."""

    shown: ClassVar[int]
    """Inputs seen in this process (images, or mosaics); whoever counts sets it to 0."""

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Images) -> TeacherOutput:
        """Average quarters."""
        type(self).shown += len(images)
        return TeacherOutput(summary=None, spatial=quarter_means(images, self.spec.patch))


@final
class Direct(AbstractQuarters):
    """Any size, patch 16."""

    declared = _spec("direct", patch=16, native=256, size_rule="any")
    shown = 0


@final
class Canvas(AbstractQuarters):
    """SAM3's 72 × 72 tokens, of the student's patch, so that scales agree as well as grids."""

    declared = _spec("canvas", patch=16, native=1152, size_rule="canvas")
    shown = 0


@final
class CanvasFourteen(AbstractQuarters):
    """SAM3's geometry: 1008 px, patch 14."""

    declared = _spec("canvas-14", patch=14, native=1008, size_rule="canvas")
    shown = 0


@final
class Fixed(AbstractQuarters):
    """SigLIP2-g-384's 24 × 24 tokens, of the student's patch."""

    declared = _spec("fixed", patch=16, native=384, size_rule="fixed")
    shown = 0


@final
class FixedFourteen(AbstractQuarters):
    """378 px, patch 14: 27 × 27 tokens, as many as a student of patch 16 has at 432 px."""

    declared = _spec("fixed-14", patch=14, native=378, size_rule="fixed")
    shown = 0


@final
class DirectFourteen(AbstractQuarters):
    """Any size, patch 14: 16 tokens beside a student's 14 at 224 px."""

    declared = _spec("direct-14", patch=14, native=224, size_rule="any")
    shown = 0


@final
class SmallDirect(AbstractQuarters):
    """Any size, patch 2."""

    declared = _spec("small-direct", patch=2, native=32, size_rule="any")
    shown = 0


@final
class SmallCanvas(AbstractQuarters):
    """72 × 72 tokens of 2 pixels: every mosaic of SAM3, at a sixty-fourth of the pixels."""

    declared = _spec("small-canvas", patch=2, native=144, size_rule="canvas")
    shown = 0


@final
class SmallFixed(AbstractQuarters):
    """48 px, patch 2: 24 × 24 tokens."""

    declared = _spec("small-fixed", patch=2, native=48, size_rule="fixed")
    shown = 0


@final
class FourFixed(AbstractQuarters):
    """96 px, patch 4: 24 × 24 tokens."""

    declared = _spec("four-fixed", patch=4, native=96, size_rule="fixed")
    shown = 0
