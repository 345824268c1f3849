"""The machine that measures: its device, its clock for timing, its caches, its frequencies."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Protocol

import torch

from fastgan.train.environment import cpu_facts

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
_LARGEST_ASSUMED_CACHE = 32 << 20


class Stopwatch(Protocol):
    """Measures the time between `start` and `stop`, in seconds, on the device that does the work."""

    def start(self) -> None:
        """Begins a sample."""
        ...

    def stop(self) -> float:
        """Ends it once the device has finished, and says how long the device took."""
        ...


class CpuStopwatch:
    """Wall time."""

    def start(self) -> None:
        self._began = time.perf_counter()

    def stop(self) -> float:
        return time.perf_counter() - self._began


class CudaStopwatch:
    """Time between two CUDA events on the current stream."""

    def __init__(self) -> None:
        self._events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def start(self) -> None:
        torch.cuda.synchronize()
        self._events[0].record()

    def stop(self) -> float:
        self._events[1].record()
        self._events[1].synchronize()
        return self._events[0].elapsed_time(self._events[1]) / 1e3


def stopwatch(device: torch.device) -> Stopwatch:
    """The right clock for `device`."""
    return CudaStopwatch() if device.type == "cuda" else CpuStopwatch()


def default_device() -> torch.device:
    """The GPU if torch can use one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def computes_bf16(device: torch.device) -> bool:
    """Whether it has instructions for bf16: an emulated training step takes ten times as long."""
    return device.type != "cpu" or bool(cpu_facts()["bf16_instructions"])


def require_bf16(device: torch.device) -> None:
    """Raises RuntimeError on a device without instructions for bf16."""
    if not computes_bf16(device):
        raise RuntimeError("this CPU has no bf16 instructions, and their emulation is not worth timing")


def cache_bytes(device: torch.device) -> int:
    """Size of the last cache before memory."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = [_kibibytes(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(sizes, default=_LARGEST_ASSUMED_CACHE)


def _kibibytes(path: Path) -> int:
    match = re.fullmatch(r"(\d+)([KM])", path.read_text().strip())
    return int(match[1]) << {"K": 10, "M": 20}[match[2]] if match else 0


def gpu_clocks() -> dict[str, str] | None:
    """Clocks, power and temperature of the first GPU as nvidia-smi reads them now; None without it."""
    if shutil.which("nvidia-smi") is None:
        return None
    names = ("clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "temperature.gpu")
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(names, values, strict=False)) or None
