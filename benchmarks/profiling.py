"""What one call does: the kernels that run, and the memory that its tensors take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.rows import KernelUse

NUM_KERNELS_KEPT = 8


class CallProfile(NamedTuple):
    """kernels: those that took longest. num_launches, device_microseconds: of all. peak_bytes: of tensors."""

    kernels: tuple[KernelUse, ...]
    num_launches: int
    device_microseconds: float
    peak_bytes: int


def profile_call(call: Callable[[], Any], device: torch.device) -> CallProfile:
    """Profiles the second of two calls: the first may set things up."""
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    # The memory of a CPU's tensors is only known event by event; CUDA's allocator keeps count by itself.
    with profile(activities=activities, profile_memory=device.type == "cpu", acc_events=True) as profiler:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else _cpu_peak_bytes(profiler)
    uses = _cuda_kernels(profiler) if device.type == "cuda" else _cpu_operators(profiler)
    kept = sorted(uses, key=lambda use: use.microseconds, reverse=True)[:NUM_KERNELS_KEPT]
    launches, microseconds = sum(use.num_launches for use in uses), sum(use.microseconds for use in uses)
    return CallProfile(tuple(kept), launches, round(microseconds, 1), max(peak, 0))


def _cuda_kernels(profiler: profile) -> list[KernelUse]:
    """Kernels, copies and fills on the GPU, by name."""
    times: dict[str, list[float]] = defaultdict(list)
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            times[event.name].append(event.time_range.elapsed_us())
    return [KernelUse(name=name, num_launches=len(us), microseconds=round(sum(us), 1)) for name, us in times.items()]


def _cpu_operators(profiler: profile) -> list[KernelUse]:
    """Operators with the time they spent themselves, by name."""
    return [
        KernelUse(name=event.key, num_launches=event.count, microseconds=round(event.self_cpu_time_total, 1))
        for event in profiler.key_averages()
        if not event.key.startswith("[") and event.self_cpu_time_total > 0
    ]


def _cpu_peak_bytes(profiler: profile) -> int:
    """The highest sum of the allocations and releases so far; memory from before the call counts as zero."""
    assert profiler.profiler is not None
    current = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak
