"""The device that a worker runs on, and its peak arithmetic rate."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch

from storage_schemas.format.teacher import Precision


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of one machine."""

    name: str
    """Name that torch reports; `cpu` for a CPU."""
    place: str
    """Identifies it among all devices: the machine's name, and for a GPU also its UUID."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Peak rates of a GPU by its maker's data sheet, without sparsity."""

    bfloat16: float
    """Matrix products in bfloat16 on tensor cores (TFLOP/s)."""
    float32: float
    """Arithmetic in float32, outside tensor cores: torch does not round its matrix products to TF32 (TFLOP/s)."""


PEAKS: Mapping[str, Peak] = {
    # NVIDIA H200 data sheet: 1,979 with sparsity; NVL 1,671
    "NVIDIA H200": Peak(bfloat16=989.5, float32=67),
    "NVIDIA H200 NVL": Peak(bfloat16=835.5, float32=60),
    # NVIDIA H100 data sheet: SXM 1,979 with sparsity; NVL 1,671; NVIDIA H100 PCIe product brief: 1,513
    "NVIDIA H100 80GB HBM3": Peak(bfloat16=989.5, float32=67),
    "NVIDIA H100 NVL": Peak(bfloat16=835.5, float32=60),
    "NVIDIA H100 PCIe": Peak(bfloat16=756.5, float32=51),
    # NVIDIA A100 data sheet
    "NVIDIA A100-SXM4-40GB": Peak(bfloat16=312, float32=19.5),
    "NVIDIA A100-SXM4-80GB": Peak(bfloat16=312, float32=19.5),
    "NVIDIA A100-PCIE-40GB": Peak(bfloat16=312, float32=19.5),
    "NVIDIA A100 80GB PCIe": Peak(bfloat16=312, float32=19.5),
    # NVIDIA L40S, L4 and A10 data sheets
    "NVIDIA L40S": Peak(bfloat16=362, float32=91.6),
    "NVIDIA L4": Peak(bfloat16=121, float32=30.3),
    "NVIDIA A10": Peak(bfloat16=125, float32=31.2),
}
"""Peak rates by the name that torch reports. A MIG slice of a GPU has another name, and no peak here."""


def device_of(device: torch.device) -> Device:
    """Return the name and place of a torch device on this machine."""
    if device.type != "cuda":
        return Device(name=device.type, place=platform.node())
    gpu = torch.cuda.get_device_properties(device)
    return Device(name=gpu.name, place=f"{platform.node()}/{gpu.uuid}")


def peak_tflops(device: Device, precision: Precision) -> float | None:
    """Return the peak rate of a device in a precision (TFLOP/s), or None where it is not known."""
    peak = PEAKS.get(device.name)
    if peak is None:
        return None
    return peak.float32 if precision == "fp32" else peak.bfloat16
