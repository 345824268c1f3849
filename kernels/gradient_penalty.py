# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""Penalty of every sample with its derivative, and interpolation: csrc/gradient_penalty.cu in Triton.

Shape legend: N samples of M numbers, B blocks of BLOCK numbers per sample.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels.launch import on_its_gpu

# A constant, so that the order of every sum is the same on every GPU.
BLOCK = 4096


@triton.jit
def square_sums_kernel(rows_ptr, sums_ptr, size, BLOCK: tl.constexpr):
    """The sum of squares of one block of one sample. Grid: (N, B)."""
    sample, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i = block * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(rows_ptr + sample * size + i, mask=i < size, other=0.0).to(tl.float32)
    tl.store(sums_ptr + sample * tl.num_programs(1) + block, tl.sum(values * values, axis=0))


@triton.jit
def penalties_kernel(
    sums_ptr, penalty_ptr, factor_ptr, num_blocks, center, HAS_CENTER: tl.constexpr, ONE_SIDED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Penalty and factor of one sample. Grid: (N,)."""
    sample = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    square = tl.sum(tl.load(sums_ptr + sample.to(tl.int64) * num_blocks + i, mask=i < num_blocks, other=0.0), axis=0)
    penalty = square
    factor = tl.zeros_like(square) + 2.0
    if HAS_CENTER:
        norm = tl.sqrt(square)
        excess = norm - center
        if ONE_SIDED:
            excess = tl.where(excess < 0.0, 0.0, excess)
        penalty = excess * excess
        factor = tl.where(norm == 0.0, 0.0, 2.0 * excess / tl.where(norm == 0.0, 1.0, norm))
    tl.store(penalty_ptr + sample, penalty)
    tl.store(factor_ptr + sample, factor)


@triton.jit
def scale_kernel(rows_ptr, factors_ptr, cotangents_ptr, out_ptr, size, BLOCK: tl.constexpr):
    """out = factors_n * cotangents_n * rows_n. Grid: (N, B)."""
    sample = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    scale = tl.load(factors_ptr + sample) * tl.load(cotangents_ptr + sample)
    values = tl.load(rows_ptr + sample * size + i, mask=i < size, other=0.0).to(tl.float32)
    tl.store(out_ptr + sample * size + i, values * scale, mask=i < size)


@triton.jit
def interpolate_kernel(real_ptr, fake_ptr, weights_ptr, out_ptr, size, BLOCK: tl.constexpr):
    """out = weights_n * real_n + (1 - weights_n) * fake_n, exact at both ends. Grid: (N, B)."""
    sample = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    weight = tl.load(weights_ptr + sample)
    real = tl.load(real_ptr + sample * size + i, mask=i < size, other=0.0).to(tl.float32)
    fake = tl.load(fake_ptr + sample * size + i, mask=i < size, other=0.0).to(tl.float32)
    near_fake = fake + weight * (real - fake)
    near_real = real - (1.0 - weight) * (real - fake)
    tl.store(out_ptr + sample * size + i, tl.where(weight < 0.5, near_fake, near_real), mask=i < size)


@on_its_gpu
def gradient_penalty(rows: Tensor, *, center: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    """As `fastgan.native.gradient_penalty`."""
    num_samples, size = rows.shape
    num_blocks = triton.cdiv(size, BLOCK)
    sums = torch.empty(num_samples, num_blocks, dtype=torch.float32, device=rows.device)
    penalty, factor = torch.empty_like(sums[:, 0]), torch.empty_like(sums[:, 0])
    square_sums_kernel[(num_samples, num_blocks)](rows, sums, size, BLOCK=BLOCK)
    penalties_kernel[(num_samples,)](
        sums, penalty, factor, num_blocks, float(center),
        HAS_CENTER=center != 0, ONE_SIDED=one_sided, BLOCK=triton.next_power_of_2(num_blocks),
    )  # fmt: skip
    return penalty, factor


@on_its_gpu
def scale_samples(rows: Tensor, factors: Tensor, cotangents: Tensor) -> Tensor:
    """As `fastgan.native.scale_samples`."""
    out = torch.empty_like(rows)
    scale_kernel[(rows.shape[0], triton.cdiv(rows.shape[1], BLOCK))](
        rows, factors, cotangents, out, rows.shape[1], BLOCK=BLOCK
    )
    return out


@on_its_gpu
def interpolate(real: Tensor, fake: Tensor, out: Tensor, *, weights: Tensor) -> None:
    """As `fastgan.native.interpolate`."""
    grid = (real.shape[0], triton.cdiv(real.shape[1], BLOCK))
    interpolate_kernel[grid](real, fake, weights, out, real.shape[1], BLOCK=BLOCK)
