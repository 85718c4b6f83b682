"""The exported student: weights as safetensors, and a card in JSON. Its heads give raw teacher features."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, Problem, SettingError
from storage_schemas.format.phi_s import PhiS
from storage_schemas.objects.publish import write_whole
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.settings.student import read_head_settings, read_vit_settings
from trainer.student.blocks import BlockNormaliser, block_maps, group_means, observed_blocks, parse_groups
from trainer.student.model import DistilledModel, ModelOutput, TeacherShape, feature_head, spatial_head, summarised
from trainer.student.shape import StudentShape
from trainer.student.student import Student

CARD_VERSION = 2
"""Version of the card. Cards of other versions are refused."""


OVERSHOOT = 0.25
"""How far pixels may leave [0, 1]: bicubic resampling exceeds it at sharp edges, by less than this."""


@final
class ExportedStudent(nn.Module):
    """A finished student. Its heads give raw teacher features: the inverse of PHI-S is folded into them."""

    def __init__(
        self, model: DistilledModel, card: Mapping[str, Any], normaliser: BlockNormaliser | None = None
    ) -> None:
        super().__init__()
        self.model, self.card, self.normaliser = model, card, normaliser

    @property
    def student(self) -> Student:
        """The backbone with its pixel normalisation inside; `student.backbone` is the backbone alone."""
        return self.model.student

    @property
    def heads(self) -> nn.ModuleDict:
        """The adaptor heads: `<teacher>_spatial` and, if the teacher has a summary, `<teacher>_summary`."""
        return self.model.heads

    def forward(self, pixels: Tensor, *, window: int | None = None) -> ModelOutput:
        """Run the student and all heads on images.

        Args:
            pixels: RGB in [0, 1] `[batch, 3, height, width]`, in the type of the weights; the model normalises them.
                Resampling may exceed the range by up to `OVERSHOOT`. Sides must be multiples of the backbone's stride.
            window: side of the windows (tokens) in which most blocks attend; None for global attention.

        Returns:
            Tokens `[batch, rows, columns, channels]` and summaries `[batch, channels]` by teacher, in raw teacher
            units, and the student's own features.

        Raises:
            SettingError: pixels of another type, range or shape, or that hold NaN.
        """
        if not torch.compiler.is_compiling():  # a program that is written for another library cannot look at values
            require_pixels(pixels, self.student)
        return self.model(pixels, self.card["teachers"], window=window)

    def with_blocks(
        self,
        pixels: Tensor,
        blocks: Sequence[str | int | range],
        *,
        window: int | None = None,
        normalise: bool = False,
    ) -> tuple[ModelOutput, list[Float[Tensor, "batch rows columns channels"]]]:
        """Run the student once, and also return the features of intermediate blocks.

        Source: RADIOv2.5, finding 8: single blocks (sparse), or means over consecutive ones (dense).

            output, [early, late] = student.with_blocks(pixels, [7, 15])
            output, maps = student.with_blocks(pixels, ["0-9", "10-19", "20-30", 31], normalise=True)

        Args:
            pixels: as for `forward`.
            blocks: for each map a block, counted from 0 (`-1`: the last), or the first and the last of several.
            window: as for `forward`.
            normalise: whether each block is brought to mean 0 and mean variance 1 before the mean is taken.

        Returns:
            The output of `forward`, and a map for each entry of `blocks`: patches alone, before the backbone's norm.

        Raises:
            SettingError: a block that the student does not have, or pixels that it would misread.
            MissingError: no normaliser was fitted to these weights.
        """
        groups = parse_groups(blocks, self.student)
        normaliser = self._fitted_normaliser() if normalise else None
        with observed_blocks(self.student, groups) as outputs:
            output = self(pixels, window=window)
        return output, group_means(groups, block_maps(self.student, pixels, outputs, window), normaliser)

    def _fitted_normaliser(self) -> BlockNormaliser:
        if self.normaliser is None:
            fix = "`python -m trainer normalise --student … --cache …` fits it on the held-out views"
            found = "no normaliser was fitted to these weights"
            raise MissingError("normaliser", [Problem(place=self.student.name, found=found, fix=fix)])
        return self.normaliser


def require_pixels(pixels: Tensor, student: Student) -> None:
    """Refuse what is not RGB in [0, 1]: a student would give features for it, but wrong ones.

    Raises:
        SettingError: pixels of another type, range or shape, or that hold NaN.
    """
    if problems := list(_pixel_problems(pixels, student)):
        raise SettingError("pixels", [Problem(place=student.name, found=found, fix=fix) for found, fix in problems])


def _pixel_problems(pixels: Tensor, student: Student) -> Iterator[tuple[str, str]]:
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        yield f"the shape is {tuple(pixels.shape)}", "give [batch, 3, height, width]"
        return
    height, width = pixels.shape[2:]
    if not height or not width or height % student.stride or width % student.stride:
        found = f"{height} × {width} px: the sides are not multiples of {student.stride}, the side of a token"
        yield found, "resize, crop or pad the images"
    if not pixels.is_floating_point():
        yield f"the type is {pixels.dtype}", "give values in [0, 1]: pixels / 255 for values from 0 to 255"
        return
    if pixels.dtype != student.mean.dtype and not torch.is_autocast_enabled(pixels.device.type):
        yield f"the type is {pixels.dtype}, that of the weights is {student.mean.dtype}", "use pixels.to(…)"
    low, high = (float(value) for value in pixels.detach().aminmax()) if pixels.numel() else (0.0, 1.0)
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        fix = "give RGB in [0, 1] without NaN: the student normalises by itself"
        yield f"the values go from {low:.3g} to {high:.3g}", fix


def fold(last: nn.Linear, phi_s: PhiS) -> tuple[Float32[Tensor, "channels width"], Float32[Tensor, " channels"]]:
    """Fold the inverse of PHI-S into a head's last layer.

        raw = φ Rᵀ (W h + b) + μ    ⇒    W' = φ Rᵀ W,   b' = φ Rᵀ b + μ

    Args:
        last: the layer; its output is in PHI-S units.
        phi_s: the teacher's map.

    Returns:
        W' and b', computed in float64.
    """
    back, mean = torch.from_numpy(phi_s.rotation.T * phi_s.scale), torch.from_numpy(phi_s.mean)
    weight, bias = last.weight.detach().cpu().double(), last.bias.detach().cpu().double()
    return (back @ weight).float(), (back @ bias + mean).float()


def unfold(folded: nn.Linear, phi_s: PhiS) -> tuple[Float32[Tensor, "channels width"], Float32[Tensor, " channels"]]:
    """Undo `fold`: return a last layer whose output is in PHI-S units, from one whose output is raw.

        W = φ⁻¹ R W',   b = φ⁻¹ R (b' − μ)

    Args:
        folded: the layer; its output is in raw teacher units.
        phi_s: the teacher's map. It may be another than the one that was folded in.

    Returns:
        W and b, computed in float64.
    """
    onward, mean = torch.from_numpy(phi_s.rotation / phi_s.scale), torch.from_numpy(phi_s.mean)
    weight, bias = folded.weight.detach().cpu().double(), folded.bias.detach().cpu().double()
    return (onward @ weight).float(), (onward @ (bias - mean)).float()


def export_student(
    model: DistilledModel, shape: StudentShape, phi_s: Mapping[str, PhiS], about: Mapping[str, Any], run: RunFolder
) -> None:
    """Write a model's weights and its card into a run's folder. The card is written last.

    Args:
        model: student and heads, trained in PHI-S units. It does not change.
        shape: sizes of the student's outputs.
        phi_s: PHI-S map of each teacher.
        about: further contents of the card, JSON-ready: student, image_size, vit, heads, teachers, recipe, cache,
            scores.
        run: folder of the run.

    Raises:
        ContractError: a weight is NaN or infinite.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for teacher, teacher_map in phi_s.items():
        folded = fold(feature_head(model, teacher).last, teacher_map)
        tensors |= dict(zip(_last_layer(teacher), folded, strict=True))
    if broken := [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ContractError("export", [Problem(place=name, found="holds NaN or infinity") for name in broken])
    body = safetensors.torch.save(tensors)
    write_whole(run.weights, body)
    sizes = {"channels": shape.channels, "summary_channels": shape.summary_channels}
    digest = hashlib.sha256(body).hexdigest()
    built = {"pixels": _pixels(model.student), "sizes": sizes, "weights_sha256": digest}
    write_json(run.card, {"version": CARD_VERSION, **about, **built})


def load(path: str | Path) -> ExportedStudent:
    """Load an exported student, in evaluation mode, on the CPU.

        student = trainer.load("runs/small")
        output = student(pixels)             # RGB in [0, 1], `[batch, 3, height, width]`
        output.spatial["dinov3"]             # raw teacher features, `[batch, rows, columns, channels]`

    Args:
        path: the folder of a finished run.

    Raises:
        MissingError: the folder holds no exported student.
        ContractError: the card has another version.
        CorruptionError: the weights are not those that the card names.
    """
    run = RunFolder(path=Path(path))
    if not run.card.exists():
        found, fix = "holds no student.json", "finish the run: repeat its `make train` command, and it resumes"
        raise MissingError("student", [Problem(place=str(path), found=found, fix=fix)])
    card = read_json(run.card)
    if card.get("version") != CARD_VERSION:
        found = f"has version {card.get('version')}, but this Stillhouse reads version {CARD_VERSION}"
        raise ContractError("student card", [Problem(place=str(run.card), found=found)])
    body = run.weights.read_bytes()
    if hashlib.sha256(body).hexdigest() != card["weights_sha256"]:
        raise CorruptionError("student", [Problem(place=str(run.weights), found="is not the file that its card names")])
    model = _build(card)
    model.load_state_dict(safetensors.torch.load(body))
    return ExportedStudent(model, card, _read_normaliser(run, card["weights_sha256"])).eval()


def _read_normaliser(run: RunFolder, weights_sha256: str) -> BlockNormaliser | None:
    """Return the normaliser that was fitted to these weights; None where there is none, or it was fitted to others."""
    if not run.blocks.exists():
        return None
    try:
        with safetensors.safe_open(run.blocks, "pt") as file:
            facts = json.loads(file.metadata()["stillhouse"])
            fitted = BlockNormaliser(mean=file.get_tensor("mean"), scale=file.get_tensor("scale"))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        fix = "delete it, and repeat `python -m trainer normalise`"
        raise CorruptionError(
            "normaliser", [Problem(place=str(run.blocks), found="cannot be read", fix=fix)]
        ) from error
    return fitted if facts["weights_sha256"] == weights_sha256 else None


def _build(card: Mapping[str, Any]) -> DistilledModel:
    shape = StudentShape(**card["sizes"], tokens={})
    teachers = {
        name: TeacherShape(dim=facts["channels"], summary_dim=facts["summary_channels"])
        for name, facts in card["teachers"].items()
    }
    vit = read_vit_settings(card["vit"])
    student = Student(card["student"], card["image_size"], vit, summarised(teachers))
    return DistilledModel(student, shape, teachers, read_head_settings(card["heads"]))


def _pixels(student: Student) -> dict[str, Any]:
    """Return how the backbone's pixels are normalised, for use of the backbone alone; the student does it by itself."""
    mean, std = (values.flatten().tolist() for values in (student.mean, student.std))
    return {"stride": student.stride, "mean": mean, "std": std}


def _last_layer(teacher: str) -> tuple[str, str]:
    last = f"heads.{spatial_head(teacher)}.adaptor.last"
    return f"{last}.weight", f"{last}.bias"
