"""The interface of all teachers: normalised pixels in, a summary and a map of tokens out."""

import abc
import contextlib
from functools import cached_property
from typing import ClassVar, final

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import Precision, TeacherSpec
from teachers.compiled import compiled_by_shape
from teachers.digest import weights_digest
from teachers.layers import refuse_layers
from teachers.output import TeacherOutput, check_shapes, in_float32, refuse_non_finite
from teachers.sizes import token_grid


class AbstractTeacher(abc.ABC):
    """A frozen model, with its spec (the sizes it accepts, how pixels are normalised) and a digest of its weights.

    A teacher of your own declares its `TeacherSpec`, passes its network to this constructor and implements `features`;
    `docs/adding_a_teacher.md` has a complete example.
    """

    declared: ClassVar[TeacherSpec]
    """The spec of the class, before a recipe renames it. Only a teacher outside the catalogue needs it."""

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
        """Freeze the network and move it to its device.

        Args:
            spec: of the teacher, under its name in the cache.
            network: with its weights loaded. If `precision` is `bf16`, its parameters are cast to bfloat16. Its buffers
                are not: position tables would be wrong by whole pixels in bfloat16.
            device: where it runs.
            precision: `fp32`; `bf16-autocast`, float32 weights and bfloat16 products; or `bf16`, bfloat16 weights.
            layers: blocks whose maps are returned too, besides the last block's: counted from 0, ascending.
            compiled: run `features` through `torch.compile`, with a program for each shape of images; see
                `compiled_by_shape`. No effect on a CPU, where compiling takes longer than it saves.
        """
        self.spec = spec
        self.device = torch.empty(0, device=device).device
        self.precision = precision
        self.layers = refuse_layers(spec.name, layers)
        self.network = network.to(self.device).eval().requires_grad_(False)
        if precision == "bf16":
            _cast_parameters(self.network, torch.bfloat16)
        self.compiled = compiled and self.device.type == "cuda"
        self._features = compiled_by_shape(self.features) if self.compiled else self.features

    @abc.abstractmethod
    def features(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Run the network.

        `encode` calls this. It has checked the size, set the precision and switched gradients off; afterwards it checks
        the output.

        Args:
            images: normalised, on the teacher's device, of a size that the spec accepts.
        """

    @final
    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Return the teacher's features of normalised images.

        Args:
            images: pixels normalised by `normalise`, float32 or bfloat16, on the teacher's device.

        Returns:
            Summary `[batch, summary_dim]` and maps `[batch, rows, cols, dim]`, float32, in raw units.

        Raises:
            SettingError: images of a size, device or dtype that the teacher does not accept.
            ContractError: the network returned shapes that the spec does not declare, or a value that is not finite.
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
        """SHA-256 of the loaded tensors. Equal weights have equal digests, from whatever file or layout they came."""
        return weights_digest(self.network.state_dict())

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "bf16-autocast":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()


def normalise(pixels: Num[Tensor, "batch height width 3"], spec: TeacherSpec) -> Float[Tensor, "batch 3 height width"]:
    """Return `(pixels / 255 − mean) / std`, channels first.

    Nothing is cut or resized here: views are cut and resized once, for all teachers.

    Args:
        pixels: RGB, uint8 or float32, 0 to 255.
        spec: of the teacher; its mean and standard deviation are of pixels in [0, 1].

    Raises:
        SettingError: pixels of another dtype: their range is unknown.
    """
    if pixels.dtype not in (torch.uint8, torch.float32):
        found = f"{str(pixels.dtype).removeprefix('torch.')}, whose range of values is unknown"
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
        problems.append(Problem(place="images", found=f"are on {images.device}, the teacher is on {device}"))
    if problems:
        raise SettingError(f"teacher {name!r}", problems)
