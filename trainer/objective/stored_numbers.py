"""Stored features as numbers in PHI-S units, made on the student's device: until then the stored integers travel."""

from typing import final

import torch
from jaxtyping import Float, Int8, Shaped
from torch import Tensor

from storage_schemas.format.encodings import Coding


@final
class StoredNumbers:
    """What a teacher's stored entries stand for, with the matrix of its latents on each device that asked for it.

    It is no module: nothing of it is part of a checkpoint.
    """

    def __init__(self, coding: Coding) -> None:
        """Take what the entries stand for.

        Args:
            coding: as `Cache.coding` gives it.
        """
        self.coding = coding
        self._synthesis: dict[torch.device, Float[Tensor, "kept channels"]] = {}

    def __call__(self, entries: Shaped[Tensor, "*tokens stored"]) -> Float[Tensor, "*tokens channels"]:
        """Return stored entries as numbers in PHI-S units, in float32; floats are returned as they are."""
        if entries.is_floating_point():
            return entries
        if self.coding.latents is None:
            return entries.float() * self.coding.step
        return self._from_latents(entries)

    def _from_latents(self, entries: Int8[Tensor, "*tokens stored"]) -> Float[Tensor, "*tokens channels"]:
        in_steps = torch.ldexp(entries[..., 1:].float(), entries[..., :1])
        with torch.autocast(entries.device.type, enabled=False):  # in bfloat16 the steps would lose most of their bits
            return in_steps @ self._on(entries.device)

    def _on(self, device: torch.device) -> Float[Tensor, "kept channels"]:
        if device not in self._synthesis and self.coding.latents is not None:
            self._synthesis[device] = torch.from_numpy(self.coding.latents.synthesis).to(device)
        return self._synthesis[device]
