"""What every teacher is: pixels in, a summary and a map of tokens out, and one digest for its weights."""

import abc
import contextlib
from functools import cached_property
from typing import ClassVar, final

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import Precision, TeacherSpec
from teachers.digest import weights_digest
from teachers.layers import refuse_layers
from teachers.output import TeacherOutput, check_shapes, in_float32, refuse_non_finite
from teachers.sizes import token_grid


class AbstractTeacher(abc.ABC):
    """A frozen model with the sizes it accepts, how it wants its pixels, and a digest of its weights.

    A teacher of your own declares its `TeacherSpec`, hands its network to this constructor and implements
    `features`; `docs/adding_a_teacher.md` has one in full.
    """

    declared: ClassVar[TeacherSpec]
    """What the class is before a recipe renames it. Only a teacher outside the catalogue needs to declare it."""

    def __init__(
        self,
        *,
        spec: TeacherSpec,
        network: nn.Module,
        device: torch.device | str,
        precision: Precision,
        layers: tuple[int, ...] = (),
        compiled: bool = False,
    ) -> None:
        """Freeze the network and put it where it will run.

        Args:
            spec: the teacher as the cache knows it.
            network: its weights loaded. Parameters are cast to bfloat16 when `precision` is `bf16`; buffers are not,
                since position tables lose whole pixels in bfloat16.
            device: where it runs.
            precision: `fp32`; `bf16-autocast`, float32 weights and bfloat16 products; or `bf16`, bfloat16 weights.
            layers: blocks whose maps are returned beside the last one's, counted from 0, ascending.
            compiled: run `features` through `torch.compile`. Without effect on a CPU, where compiling takes longer
                than it saves.
        """
        self.spec = spec
        self.device = torch.empty(0, device=device).device
        self.precision = precision
        self.layers = refuse_layers(spec.name, layers)
        self.network = network.to(self.device).eval().requires_grad_(False)
        if precision == "bf16":
            _cast_parameters(self.network, torch.bfloat16)
        self._features = torch.compile(self.features) if compiled and self.device.type == "cuda" else self.features

    @abc.abstractmethod
    def features(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Run the network; `encode` has seen to the size, the precision and the gradient, and checks what comes back.

        Args:
            images: normalised, on the teacher's device, in a size that its spec allows.
        """

    @final
    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Return the teacher's features of normalised images.

        Args:
            images: pixels normalised by `normalise`, float32 or bfloat16, on the teacher's device.

        Returns:
            Summary `[batch, summary_dim]` and maps `[batch, rows, cols, dim]`, float32, in raw units.

        Raises:
            SettingError: a size that the teacher does not accept, another device or another dtype.
            ContractError: the network returned other shapes than the spec declares, or a value that is not finite.
        """
        grid = token_grid(self.spec, images.shape[-2], images.shape[-1])
        _refuse_images(self.spec.name, images, self.device)
        with torch.inference_mode(), self._autocast():
            output = self._features(images.bfloat16() if self.precision == "bf16" else images.float())
        check_shapes(self.spec, output, (len(images), *grid), self.layers)
        output = in_float32(output)
        refuse_non_finite(self.spec.name, output)
        return output

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the loaded tensors; equal for equal weights whatever file, layout or seed they came from."""
        return weights_digest(self.network.state_dict())

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "bf16-autocast":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()


def normalise(pixels: Num[Tensor, "batch height width 3"], spec: TeacherSpec) -> Float[Tensor, "batch 3 height width"]:
    """Return `(pixels / 255 − mean) / std`, channels first.

    Geometry is not done here: views are cut and resized once, for all teachers, before they reach one.

    Args:
        pixels: RGB, uint8 or float32, 0 to 255.
        spec: whose mean and standard deviation (of pixels in [0, 1]) to use.

    Raises:
        SettingError: pixels of another dtype, whose range would be a guess.
    """
    if pixels.dtype not in (torch.uint8, torch.float32):
        found = f"{str(pixels.dtype).removeprefix('torch.')}, which does not say what range the values have"
        fix = "give uint8, or float32 from 0 to 255"
        raise SettingError(f"teacher {spec.name!r}", [Problem(place="pixels", found=found, fix=fix)])
    mean = torch.tensor(spec.mean, device=pixels.device)
    std = torch.tensor(spec.std, device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def _cast_parameters(network: nn.Module, dtype: torch.dtype) -> None:
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)


def _refuse_images(name: str, images: Tensor, device: torch.device) -> None:
    problems = []
    if images.dtype not in (torch.float32, torch.bfloat16):
        found = f"{str(images.dtype).removeprefix('torch.')}, expected float32 or bfloat16"
        problems.append(Problem(place="images", found=found, fix="normalise() gives float32"))
    if images.device != device:
        problems.append(Problem(place="images", found=f"on {images.device}, the teacher is on {device}"))
    if problems:
        raise SettingError(f"teacher {name!r}", problems)
