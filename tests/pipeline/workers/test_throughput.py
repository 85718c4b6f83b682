"""Figures of a stage: rates, time left, and the share of what the devices do at best."""

import pytest
import torch

from pipeline.workers.device import PEAKS, Device, device_of, peak_tflops
from pipeline.workers.throughput import Throughput, as_record

FIGURES = Throughput(done=60, total=100, seconds=4.0, views=20, tokens=4000, tflop=800.0, bytes=10_000_000, peak=1000.0)


def test_rates_are_what_this_run_did_over_its_time() -> None:
    assert str(FIGURES) == "5.0 views/s, 1000 tokens/s, 200 TFLOP/s (20% of peak), 2.5 MB/s"
    assert as_record(FIGURES) == {
        "views_done": 60,
        "views_total": 100,
        "seconds": 4.0,
        "seconds_left": 8.0,
        "views": 20,
        "views_per_second": 5.0,
        "tokens": 4000,
        "tokens_per_second": 1000.0,
        "tflop": 800.0,
        "tflop_per_second": 200.0,
        "share_of_peak": 0.2,
        "mb_written": 10.0,
        "mb_per_second": 2.5,
    }


def test_what_is_not_known_is_not_said() -> None:
    nothing = Throughput(done=0, total=9, seconds=0.0, views=0, tokens=0, tflop=0.0, bytes=0, peak=1000.0)
    assert str(nothing) == "0.0 views/s"
    unknown = ("seconds_left", "tokens", "tokens_per_second", "tflop", "tflop_per_second", "share_of_peak")
    assert [as_record(nothing)[name] for name in unknown] == [None] * 6


@pytest.mark.parametrize(("precision", "peak"), [("bf16", 989.5), ("bf16-autocast", 989.5), ("fp32", 67)])
def test_the_peak_is_that_of_the_precision(precision, peak: float) -> None:
    assert peak_tflops(Device(name="NVIDIA H100 80GB HBM3", place="here"), precision) == peak


def test_neither_a_cpu_nor_a_part_of_a_gpu_has_a_peak() -> None:
    cpu = device_of(torch.device("cpu"))
    assert cpu.name == "cpu"
    assert peak_tflops(cpu, "fp32") is None
    assert peak_tflops(Device(name="NVIDIA H100 80GB HBM3 MIG 1g.10gb", place="here"), "bf16") is None
    assert all(peak.bfloat16 > peak.float32 > 0 for peak in PEAKS.values())
