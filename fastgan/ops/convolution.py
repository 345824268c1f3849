"""The custom ops fastgan::conv2d and fastgan::conv_transpose2d: each other's derivative, with what surrounds them.

With L the convolution or the transposed one, linear in each of its two arguments, both ops compute

    y = clamp(gain * activation(z)),   z = scale * L(u, weight) + noise + bias,   u = x, or x * slope(gate) with a gate.

The gate is what an epilogue saved (see `bias_act_grad`), so a gated L applies an activation's derivative and a
convolution's in one kernel: the input gradient of a layer, which a gradient penalty computes and differentiates.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels.spec import Activation, Geometry
from fastgan.ops.bias_act import bias_act_reference, epilogue_gradients
from fastgan.ops.bias_act_grad import bias_act_grad_op, bias_act_grad_reference, slope_derivative
from fastgan.ops.conv2d_weight_grad import as_channels_last, conv2d_weight_grad_op
from fastgan.ops.eager import register
from fastgan.ops.weight_gradients import weight_gradients_are_wanted

Linear = Literal["conv2d", "conv_transpose2d"]

_SCHEMA = (
    "(Tensor x, Tensor weight, Tensor? gate, Tensor? scale, Tensor? bias, Tensor? noise, int stride, "
    "SymInt[] padding, SymInt[] output_padding, int groups, str activation, float gain, float? clamp, "
    "str gate_activation, float gate_gain, float? gate_clamp, str backend) -> Tensor"
)


class Operands(NamedTuple):
    """The tensors of one call.

    x [N, C, H, W]; weight [O, C / G, K, K], or [C, O / G, K, K] transposed; gate like x; scale [N, O]; bias [O]; noise
    broadcastable to y.
    """

    x: Tensor
    weight: Tensor
    gate: Tensor | None = None
    scale: Tensor | None = None
    bias: Tensor | None = None
    noise: Tensor | None = None

    @property
    def without_epilogue(self) -> "Operands":
        return Operands(self.x, self.weight, self.gate)


class Settings(NamedTuple):
    """What does not change under differentiation, and the two activations."""

    geometry: Geometry
    backend: str
    activation: Activation = Activation()
    gate_activation: Activation = Activation()


def convolution_op(linear: Linear, operands: Operands, settings: Settings) -> Tensor:
    """The custom op of that name; its result is in channels_last."""
    op = _OPS[linear]
    return op(*operands, *settings.geometry, *settings.activation, *settings.gate_activation, settings.backend)


def _settings(values: Sequence[Any]) -> Settings:
    """The last eleven arguments of the custom ops, put together again."""
    stride, padding, output_padding, groups = values[:4]
    geometry = Geometry(stride, tuple(padding), tuple(output_padding), groups)
    return Settings(geometry, values[10], Activation(*values[4:7]), Activation(*values[7:10]))


def output_shape(linear: Linear, x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[int, int, int, int]:
    """[N, O, H', W'] of the result."""
    size, kernel = (x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3])
    if linear == "conv2d":
        return (x.shape[0], weight.shape[0], *geometry.conv_size(size, kernel))
    return (x.shape[0], weight.shape[1] * geometry.groups, *geometry.conv_transpose_size(size, kernel))


def linear_reference(linear: Linear, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """L(x, weight) by PyTorch, on a GPU by cuDNN."""
    stride, padding, output_padding, groups = geometry
    if linear == "conv2d":
        return F.conv2d(x, weight, None, stride, padding, 1, groups)
    return F.conv_transpose2d(x, weight, None, stride, padding, output_padding, groups)


def _by_reference(linear: Linear, operands: Operands, settings: Settings) -> Tensor:
    x, weight, gate, scale, bias, noise = operands
    u = x if gate is None else bias_act_grad_reference(x, gate, settings.gate_activation)
    y = linear_reference(linear, u, weight, settings.geometry)
    y = y if scale is None else (y * scale[:, :, None, None]).to(y.dtype)
    return bias_act_reference(y, bias, noise, settings.activation)


def _by_cudnn(linear: Linear, operands: Operands, settings: Settings) -> Tensor:
    """PyTorch's convolution between element-wise kernels."""
    from fastgan.kernels import bias_act as kernels

    x, weight, gate, scale, bias, noise = operands
    u = x if gate is None else kernels.bias_act_grad(x, gate, settings.gate_activation)
    y = linear_reference(linear, u, weight, settings.geometry)
    if settings.activation.is_identity and scale is None and bias is None and noise is None:
        return y
    return kernels.bias_act(y, scale, bias, noise, settings.activation)


def _by_triton(linear: Linear, operands: Operands, settings: Settings) -> Tensor:
    """One kernel."""
    if linear == "conv2d":
        from fastgan.kernels.conv2d import conv2d as kernel
    else:
        from fastgan.kernels.conv_transpose2d import conv_transpose2d as kernel
    return kernel(*operands, settings.geometry, settings.activation, settings.gate_activation)


_BACKENDS = {"reference": _by_reference, "cudnn_fused": _by_cudnn, "triton": _by_triton}


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.settings = _settings(inputs[6:])
    ctx.save_for_backward(*inputs[:6], output)


def _gradients(linear: Linear, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients by the six operands, each written with the ops of this family."""
    # Read once: checkpointing gives them no second time.
    *saved_operands, output = ctx.saved_tensors
    operands, settings = Operands(*saved_operands), ctx.settings
    needs = Operands(*ctx.needs_input_grad[:6])
    needs_weight = bool(needs.weight) and weight_gradients_are_wanted()
    # Without curvature the slope is constant: no gradient flows through what it was computed from.
    saved = output if settings.activation.is_curved else output.detach()
    if settings.activation.keeps_input:
        saved = convolution_op(linear, operands, settings._replace(activation=Activation()))

    needs_bias = bool(needs.bias) and weight_gradients_are_wanted()
    if operands.scale is None and operands.gate is None and not (needs_weight or needs_bias or needs.noise):
        return _input_gradient(linear, operands, grad, settings, gate=saved), *[None] * 5
    dz = grad
    if not settings.activation.is_identity:
        dz = bias_act_grad_op(grad, saved, settings.activation, settings.backend)
    dc, by_bias, by_noise = epilogue_gradients(
        dz, operands.scale, operands.bias, operands.noise, (bool(needs.bias), bool(needs.noise))
    )
    by_scale = None
    if operands.scale is not None and needs.scale:
        plain = convolution_op(linear, operands.without_epilogue, settings._replace(activation=Activation()))
        wide = torch.promote_types(dz.dtype, operands.scale.dtype)
        by_scale = (dz * plain).sum((2, 3), dtype=wide).to(operands.scale.dtype)
    by_x = by_gate = None
    if needs.x or needs.gate:
        by_u = _input_gradient(linear, operands, dc, settings, gate=None)
        by_x, by_gate = _through_gate(operands, by_u, settings, bool(needs.gate))
    by_weight = _weight_gradient(linear, operands, dc, settings) if needs_weight else None
    return by_x, by_weight, by_gate, by_scale, by_bias, by_noise


def _input_gradient(
    linear: Linear, operands: Operands, grad: Tensor, settings: Settings, *, gate: Tensor | None
) -> Tensor:
    """The gradient by u from that by L(u, weight), or with a gate from that by y: the other op with the same weight."""
    x, weight = operands[:2]
    geometry, kernel = settings.geometry, (weight.shape[2], weight.shape[3])
    other: Linear = "conv2d" if linear == "conv_transpose2d" else "conv_transpose2d"
    if linear == "conv2d":
        small = (grad.shape[2], grad.shape[3])
        geometry = geometry.transposed_onto((x.shape[2], x.shape[3]), small, kernel)
    else:
        geometry = geometry._replace(output_padding=(0, 0))
    if gate is None or settings.activation.is_identity:
        return convolution_op(other, Operands(grad, weight), Settings(geometry, settings.backend))
    spec = Settings(geometry, settings.backend, gate_activation=settings.activation)
    return convolution_op(other, Operands(grad, weight, gate), spec)


def _through_gate(
    operands: Operands, by_u: Tensor, settings: Settings, needs_gate: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients by x and gate from that by u = x * slope(gate)."""
    x, gate, activation = operands.x, operands.gate, settings.gate_activation
    if gate is None:
        return by_u, None
    by_gate = None
    if needs_gate and activation.is_curved:
        by_gate = (by_u * x * slope_derivative(gate, activation)).to(gate.dtype)
    return bias_act_grad_op(by_u, gate, activation, settings.backend), by_gate


def _weight_gradient(linear: Linear, operands: Operands, dc: Tensor, settings: Settings) -> Tensor:
    """A transposed convolution's weight gradient is the convolution's with input and gradient exchanged."""
    x, weight, gate = operands[:3]
    u = x if gate is None else bias_act_grad_op(x, gate, settings.gate_activation, settings.backend)
    kernel = (weight.shape[2], weight.shape[3])
    geometry = settings.geometry._replace(output_padding=(0, 0))
    large, small = (u, dc) if linear == "conv2d" else (dc, u)
    return conv2d_weight_grad_op(large, small, kernel, geometry, settings.backend)


def _op(linear: Linear) -> Callable[..., Tensor]:
    def run(*arguments: Any) -> Tensor:
        settings = _settings(arguments[6:])
        return as_channels_last(_BACKENDS[settings.backend](linear, Operands(*arguments[:6]), settings))

    def fake(*arguments: Any) -> Tensor:
        x, weight = arguments[:2]
        size = output_shape(linear, x, weight, _settings(arguments[6:]).geometry)
        return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*_gradients(linear, ctx, grad), *[None] * 11)

    return register(linear, run, fake=fake, setup_context=_setup_context, backward=backward, schema=_SCHEMA)


_OPS: dict[Linear, Callable[..., Tensor]] = {"conv2d": _op("conv2d"), "conv_transpose2d": _op("conv_transpose2d")}
