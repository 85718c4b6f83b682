"""A student in the place of SAM3's image trunk, for Meta's code and for transformers'.

`python -m trainer export --format sam3` copies this file beside the program. It needs torch, and for transformers'
models that library too, but no other code of Stillhouse. Images are those of SAM3 itself: RGB in [-1, 1].

    tokens = load_tokens("exported/sam3")                       # one program, for square images of one size
    model.backbone.vision_backbone.trunk = Sam3Trunk(tokens)    # Meta's `sam3`
    replace_trunk(model, tokens)                                # transformers' `Sam3Model`

SAM3 must then be given images of `tokens.side` pixels: of transformers' processor, set `size` to it.
"""

import json
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass


@final
class Sam3Program(nn.Module):
    """The exported program: images in [-1, 1], `[batch, 3, side, side]`, to tokens `[batch, rows, columns, channels]`.

    Images are converted to the type of the weights. The weights can be moved and converted with `to` as those of any
    module, but the program's constants stay on the device that it was loaded for.
    """

    def __init__(self, program: nn.Module, facts: dict[str, Any]) -> None:
        """Wrap a program.

        Args:
            program: the program.
            facts: what `trunk.json` says: side, patch and channels.
        """
        super().__init__()
        self.program = program
        self.side: int = facts["side"]
        self.patch: int = facts["patch"]
        self.channels: int = facts["channels"]

    def forward(self, images: Tensor) -> Tensor:
        """Run the program.

        Raises:
            ValueError: images of another size.
        """
        if tuple(images.shape[1:]) != (3, self.side, self.side):
            raise ValueError(
                f"this student stands in for SAM3's trunk at [batch, 3, {self.side}, {self.side}]; the images are "
                f"{list(images.shape)}: resize them, or set the size of the processor to {self.side}"
            )
        weight = next(self.program.parameters())
        return self.program(images.to(weight.dtype))

    def train(self, mode: bool = True) -> "Sam3Program":
        """Set the mode of this module alone: a program has no modes, and refuses to be asked for one."""
        self.training = mode
        return self


def load_tokens(folder: str | Path, device: str = "cpu") -> Sam3Program:
    """Load an exported program.

    Args:
        folder: the folder that `--format sam3` wrote.
        device: where it runs, such as `cuda`.
    """
    program, facts = torch.export.load(Path(folder, "trunk.pt2")), json.loads(Path(folder, "trunk.json").read_text())
    if device != "cpu":
        program = move_to_device_pass(program, device)
    return Sam3Program(program.module(), facts)


@final
class Sam3Trunk(nn.Module):
    """The trunk as Meta's code calls it: a list of maps, of which it uses the last."""

    def __init__(self, tokens: Any) -> None:
        """Wrap what gives tokens.

        Args:
            tokens: a `Sam3Program`, or another module with the same `channels`, that maps images in [-1, 1] to tokens.
        """
        super().__init__()
        self.tokens = tokens
        self.channel_list = [int(tokens.channels)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return a list of one map, `[batch, channels, rows, columns]`."""
        return [self.tokens(images).permute(0, 3, 1, 2)]


@final
class Sam3Backbone(nn.Module):
    """The trunk as transformers' `Sam3VisionModel` calls it."""

    def __init__(self, tokens: Any) -> None:
        """Wrap what gives tokens.

        Args:
            tokens: a `Sam3Program`, or another module that maps images in [-1, 1] to tokens.
        """
        super().__init__()
        self.tokens = tokens

    def forward(self, pixel_values: Tensor, **settings: Any) -> Any:
        """Return transformers' `BaseModelOutput` with `last_hidden_state`, `[batch, rows · columns, channels]`.

        Raises:
            ValueError: hidden states or attentions are asked for; a student has none of SAM3's.
        """
        from transformers.modeling_outputs import BaseModelOutput

        if asked := [name for name in ("output_hidden_states", "output_attentions") if settings.get(name)]:
            raise ValueError(f"{' and '.join(asked)}: a student has no hidden states or attentions of SAM3's trunk")
        return BaseModelOutput(last_hidden_state=self.tokens(pixel_values).flatten(1, 2))


def replace_trunk(model: Any, tokens: Any) -> None:
    """Put a student in the place of the trunk of transformers' `Sam3Model`, in that model.

    The model computes rows and columns from the patch size of its config, so that is changed too. Whoever computes
    `vision_embeds` outside the model must give it all four levels of the neck: it drops the last one.

    Args:
        model: a `Sam3Model`.
        tokens: a `Sam3Program`, or another module with the same `patch`, `side` and `channels`.

    Raises:
        ValueError: the neck expects another number of channels.
    """
    encoder = model.vision_encoder
    config = encoder.config.backbone_config
    if config.hidden_size != tokens.channels:
        raise ValueError(
            f"the neck of this model takes {config.hidden_size} channels, the student has {tokens.channels}"
        )
    config.patch_size, config.image_size = tokens.patch, tokens.side
    encoder.backbone = Sam3Backbone(tokens)
