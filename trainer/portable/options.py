"""The command line of `export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import tyro

from storage_schemas.format.errors import Problem, SettingError

Format = Literal["timm", "radio", "torch", "onnx", "sam3", "huggingface"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Write a finished student in the format of another library, and compare it with the student."""

    student: Path = Path()
    """Folder of a finished run."""
    format: Format = "torch"
    """`torch`: a program of torch.export (student.pt2). `onnx`: an ONNX graph (student.onnx). `timm`: the weights of
    the backbone (backbone.safetensors) for timm.create_model(…, checkpoint_path=…). `huggingface`: config, weights and
    a model card for AutoModel of transformers (folder huggingface). These two only for backbones as timm builds them.
    `radio`: a folder (radio) that RadioModel of transformers loads, with a file for timm's C-RADIO models of the same
    sizes; only for students with RADIO's additions. `sam3`: the head for the teacher `sam3` as a program in the place
    of SAM3's image trunk, with adapters for Meta's code and transformers' (folder sam3)."""
    height: int | None = None
    """Height of the images that the program is for (pixels). None, together with the width: images of any size, with at
    least two tokens (or two attention windows) per side; for `sam3` 72 tokens per side. The batch size is always
    free."""
    width: int | None = None
    """Width of the images that the program is for (pixels)."""
    window: int | None = None
    """Side of the program's attention windows (tokens). None: global attention."""
    blocks: tuple[str, ...] = ()
    """Intermediate blocks whose features a program gives too, counted from 0: single ones (`7`), or the mean of several
    (`0-9`). Their outputs are called block_7 and blocks_0_9."""
    normalise: bool = False
    """Bring these features to mean 0 and mean variance 1, with what `python -m trainer normalise` fitted."""
    to: Path | None = None
    """Folder that the file is written to. None: the folder of the student."""


def export_options(arguments: Sequence[str]) -> ExportOptions:
    """Read the command line of `export`. An invalid one ends the process with a message and status 2.

    Raises:
        SettingError: no student is given.
    """
    options = tyro.cli(
        ExportOptions,
        prog="python -m trainer export",
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    if options.student == Path():
        fix = "--student runs/…, the folder of a finished run"
        raise SettingError("student", [Problem(place="--student", found="is not given", fix=fix)])
    return options
