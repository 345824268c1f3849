"""Bias, noise, activation, gain and clamp in one op: the epilogue of every convolution.

Shape legend: N batch, C channels, H W pixels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels.spec import LEAKY_RELU_SLOPE, Activation
from fastgan.ops.bias_act_grad import bias_act_grad_op
from fastgan.ops.choice import choose
from fastgan.ops.contract import check_epilogue, check_images, shape
from fastgan.ops.eager import register
from fastgan.ops.shape_class import elementwise_case
from fastgan.ops.weight_gradients import weight_gradients_are_wanted


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    activation: str = "linear",
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """clamp(gain * activation(x + noise + bias)), element by element.

    Args:
        x: [N, C, H, W], floating point.
        bias: [C], added to each channel.
        noise: broadcastable to [N, C, H, W], e.g. [N, 1, H, W].
        activation: linear, relu, leaky_relu (slope 0.2), tanh or silu.
        gain: factor applied after the activation, finite and not 0.
        clamp: bound on the absolute value of the result, applied last.
        impl: "auto", "reference", "triton", or "cudnn_fused", which for this op is the same kernel as "triton".
    Returns:
        [N, C, H, W], dtype and memory format of `x`; differentiable any number of times.
    Raises:
        ValueError, TypeError, ImplementationError: naming the argument, its value and the rule.
    """
    check_images("bias_act", x)
    spec = Activation(activation, gain, clamp)
    check_epilogue("bias_act", x, out_shape=shape(x), bias=bias, scale=None, noise=noise, activation=spec)

    def run(impl: str) -> Tensor:
        if impl == "reference":
            return bias_act_reference(x, bias, noise, spec)
        return bias_act_op(x, None, bias, noise, spec, impl)

    return run(choose(elementwise_case("bias_act", x, spec), impl, run))


def bias_act_reference(x: Tensor, bias: Tensor | None, noise: Tensor | None, activation: Activation) -> Tensor:
    """The definition of `bias_act`, in plain PyTorch."""
    y = x
    if noise is not None:
        y = y + noise.to(x.dtype)
    if bias is not None:
        y = y + bias.to(x.dtype)[:, None, None]
    y = _activate(y, activation.name)
    if activation.gain != 1.0:
        y = y * activation.gain
    return y if activation.clamp is None else y.clamp(-activation.clamp, activation.clamp)


def _activate(y: Tensor, activation: str) -> Tensor:
    match activation:
        case "relu":
            return F.relu(y)
        case "leaky_relu":
            return F.leaky_relu(y, LEAKY_RELU_SLOPE)
        case "tanh":
            return torch.tanh(y)
        case "silu":
            return F.silu(y)
    return y


def epilogue_gradients(
    dz: Tensor, scale: Tensor | None, bias: Tensor | None, noise: Tensor | None, needs: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What flows on from the gradient `dz` by z = scale * c + noise + bias: the gradients by c, bias and noise.

    Args:
        scale: [N, C] or None. needs: whether bias and noise need their gradients.
    """
    by_c = dz if scale is None else (dz * scale[:, :, None, None]).to(dz.dtype)
    by_bias = by_noise = None
    if bias is not None and needs[0] and weight_gradients_are_wanted():
        by_bias = dz.sum((0, 2, 3), dtype=torch.promote_types(dz.dtype, bias.dtype)).to(bias.dtype)
    if noise is not None and needs[1]:
        by_noise = dz.sum_to_size(noise.shape).to(noise.dtype)
    return by_c, by_bias, by_noise


def bias_act_op(  # noqa: PLR0917 - the arguments of the custom op, in its order
    x: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    noise: Tensor | None,
    activation: Activation,
    backend: str,
) -> Tensor:
    """The custom op fastgan::bias_act; `scale` [N, C] multiplies x first."""
    return _op(x, scale, bias, noise, *activation, backend)


def _run(  # noqa: PLR0917
    x: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    noise: Tensor | None,
    activation: str,
    gain: float,
    clamp: float | None,
    backend: str,
) -> Tensor:
    if backend == "reference":
        scaled = x if scale is None else (x * scale[:, :, None, None]).to(x.dtype)
        y = bias_act_reference(scaled, bias, noise, Activation(activation, gain, clamp))
        return torch.empty_like(x).copy_(y)
    from fastgan.kernels.bias_act import bias_act as kernel

    return kernel(x, scale, bias, noise, Activation(activation, gain, clamp))


def _fake(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, bias, noise, activation, gain, clamp, ctx.backend = inputs
    ctx.activation = Activation(activation, gain, clamp)
    ctx.save_for_backward(x, scale, bias, noise, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """With dz = bias_act_grad(grad): dx = scale dz, d scale = sum of x dz, d bias = sum of dz, d noise = sum of dz."""
    x, scale, bias, noise, output = ctx.saved_tensors
    needs = ctx.needs_input_grad
    # Without curvature the slope is constant: no gradient flows through what it was computed from.
    saved = output if ctx.activation.is_curved else output.detach()
    if ctx.activation.keeps_input:
        saved = bias_act_op(x, scale, bias, noise, Activation(), ctx.backend)
    dz = bias_act_grad_op(grad, saved, ctx.activation, ctx.backend)
    by_x, by_bias, by_noise = epilogue_gradients(dz, scale, bias, noise, (needs[2], needs[3]))
    by_scale = None
    if scale is not None and needs[1]:
        by_scale = (dz * x).sum((2, 3), dtype=torch.promote_types(x.dtype, scale.dtype)).to(scale.dtype)
    return by_x, by_scale, by_bias, by_noise, None, None, None, None


_op = register("bias_act", _run, fake=_fake, setup_context=_setup_context, backward=_backward)
