# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""What follows the sum of products, on a tile in registers, and its derivative.

Shape legend: a tile is [M pixels, N channels]; n y x are the pixels' batch numbers, rows and columns, c the channels.
"""

import triton
import triton.language as tl

from fastgan.kernels.spec import LEAKY_RELU_SLOPE

_SLOPE = tl.constexpr(LEAKY_RELU_SLOPE)


@triton.jit
def tanh(z):
    """Hyperbolic tangent in float32; the absolute error is that of float32."""
    t = tl.exp(-2.0 * tl.abs(z))
    size = (1.0 - t) / (1.0 + t)
    return tl.where(z < 0, -size, size)


@triton.jit
def activate(z, gain, clamp, ACTIVATION: tl.constexpr):
    """clamp(gain * activation(z)), float32."""
    if ACTIVATION == "relu":
        z = tl.where(z > 0, z, 0.0)
    elif ACTIVATION == "leaky_relu":
        z = tl.where(z > 0, z, z * _SLOPE)
    elif ACTIVATION == "tanh":
        z = tanh(z)
    elif ACTIVATION == "silu":
        z = z * tl.sigmoid(z)
    z = z * gain
    if clamp is not None:
        # Not minimum and maximum: those may turn NaN into the bound.
        z = tl.where(z > clamp, clamp, tl.where(z < -clamp, -clamp, z))
    return z


@triton.jit
def slope(saved, gain, clamp, ACTIVATION: tl.constexpr):
    """d activate / dz, float32, from what was saved: z for silu, otherwise y = activate(z)."""
    y = saved
    if ACTIVATION == "relu":
        value = tl.where(saved * gain > 0, gain, 0.0)
    elif ACTIVATION == "leaky_relu":
        value = tl.where(saved * gain > 0, gain, gain * _SLOPE)
    elif ACTIVATION == "tanh":
        value = gain - saved * saved / gain
    elif ACTIVATION == "silu":
        gate = tl.sigmoid(saved)
        value = gain * gate * (1.0 + saved * (1.0 - gate))
        y = gain * saved * gate
    else:
        value = tl.zeros_like(saved) + gain
    if clamp is not None:
        value = tl.where(tl.abs(y) >= clamp, 0.0, value)
    return value


@triton.jit
def apply_epilogue(
    acc,
    n,
    y,
    x,
    c,
    c_ok,
    ok,
    scale_ptr,
    scale_n,
    scale_c,
    bias_ptr,
    noise_ptr,
    noise_n,
    noise_c,
    noise_y,
    noise_x,
    gain,
    clamp,
    ACTIVATION: tl.constexpr,
):
    """activate(scale * acc + noise + bias) on a tile [M, N].

    Args:
        acc: [M, N] float32. n, y, x: [M], n int64. c: [N]. c_ok: [N] and ok: [M, N], what exists.
        scale_ptr: [batch, channels], noise_ptr: [batch, channels, rows, columns], each with its strides, or None.
        bias_ptr: [channels] or None. gain: number. clamp: number or None.
    """
    if scale_ptr is not None:
        offset = (n * scale_n)[:, None] + (c * scale_c)[None, :]
        acc = acc * tl.load(scale_ptr + offset, mask=ok, other=0.0).to(tl.float32)
    if noise_ptr is not None:
        pixel = n * noise_n + y.to(tl.int64) * noise_y + x.to(tl.int64) * noise_x
        offset = pixel[:, None] + (c.to(tl.int64) * noise_c)[None, :]
        acc = acc + tl.load(noise_ptr + offset, mask=ok, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        acc = acc + tl.load(bias_ptr + c, mask=c_ok, other=0.0).to(tl.float32)[None, :]
    return activate(acc, gain, clamp, ACTIVATION)
