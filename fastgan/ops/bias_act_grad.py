"""The derivative of the epilogue, an op of its own so that the second derivative has a graph to walk.

Shape legend: N batch, C channels, H W pixels. z is the sum before the activation, y = clamp(gain * activation(z)).
"""

from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.spec import LEAKY_RELU_SLOPE, Activation, saved_clamp
from fastgan.ops.choice import choose
from fastgan.ops.contract import check_activation, check_device, check_images, shape
from fastgan.ops.eager import register
from fastgan.ops.shape_class import elementwise_case


def bias_act_grad(
    grad: Tensor,
    saved: Tensor,
    *,
    activation: str = "linear",
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """grad * dy/dz, where y = clamp(gain * activation(z)), element by element.

    Args:
        grad: [N, C, H, W], floating point, the gradient by y.
        saved: [N, C, H, W], dtype of `grad`, what the derivative is computed from: z for silu, else y.
        activation, gain, clamp, impl: as in `bias_act`. Where |y| >= clamp, and at the kink of relu and leaky_relu,
            the derivative is that of the side towards minus infinity or beyond the clamp.
    Returns:
        [N, C, H, W], the gradient by z, dtype and memory format of `grad`; differentiable any number of times.
    Raises:
        ValueError, TypeError, ImplementationError: naming the argument, its value and the rule.
    """
    check_images("bias_act_grad", grad, name="grad")
    if saved.shape != grad.shape or saved.dtype != grad.dtype:
        got = f"saved is {shape(saved)} {saved.dtype} and grad is {shape(grad)} {grad.dtype}"
        raise ValueError(f"bias_act_grad: {got}; they must be equal in shape and dtype")
    check_device("bias_act_grad", "saved", saved, grad, like_name="grad")
    spec = Activation(activation, gain, clamp)
    check_activation("bias_act_grad", spec)

    def run(impl: str) -> Tensor:
        if impl == "reference":
            return bias_act_grad_reference(grad, saved, spec)
        return bias_act_grad_op(grad, saved, spec, impl)

    return run(choose(elementwise_case("bias_act_grad", grad, spec), impl, run))


def bias_act_grad_reference(grad: Tensor, saved: Tensor, activation: Activation) -> Tensor:
    """The definition of `bias_act_grad`, in plain PyTorch."""
    if activation.is_identity:
        return grad.clone()
    return (grad * slope(saved, activation)).to(grad.dtype)


def slope(saved: Tensor, activation: Activation) -> Tensor:
    """dy/dz as a function of what was saved, in float32 at least."""
    ref = saved.to(torch.promote_types(saved.dtype, torch.float32))
    gain = activation.gain
    # A tensor, because `torch.where` of two numbers has the default dtype, whatever that of `ref`.
    value = torch.full_like(ref, gain)
    match activation.name:
        case "relu":
            value = torch.where(ref * gain > 0, value, 0.0)
        case "leaky_relu":
            value = torch.where(ref * gain > 0, value, gain * LEAKY_RELU_SLOPE)
        case "tanh":
            value = gain - ref.square() / gain
        case "silu":
            gate = torch.sigmoid(ref)
            value = gain * gate * (1 + ref * (1 - gate))
    return torch.where(_is_clamped(ref, saved.dtype, activation), 0.0, value)


def slope_derivative(saved: Tensor, activation: Activation) -> Tensor:
    """The derivative of `slope` by what was saved, for activations that are curved."""
    ref = saved.to(torch.promote_types(saved.dtype, torch.float32))
    if activation.name == "tanh":
        value = -2 / activation.gain * ref
    else:
        gate = torch.sigmoid(ref)
        value = activation.gain * gate * (1 - gate) * (2 + ref * (1 - 2 * gate))
    return torch.where(_is_clamped(ref, saved.dtype, activation), 0.0, value)


def _is_clamped(ref: Tensor, dtype: torch.dtype, activation: Activation) -> Tensor:
    clamp = saved_clamp(activation, dtype)
    if clamp is None:
        return torch.zeros((), dtype=torch.bool, device=ref.device)
    y = activation.gain * ref * torch.sigmoid(ref) if activation.keeps_input else ref
    return y.abs() >= clamp


def bias_act_grad_op(grad: Tensor, saved: Tensor, activation: Activation, backend: str) -> Tensor:
    """The custom op fastgan::bias_act_grad."""
    return _op(grad, saved, *activation, backend)


def _run(  # noqa: PLR0917
    grad: Tensor, saved: Tensor, activation: str, gain: float, clamp: float | None, backend: str
) -> Tensor:
    spec = Activation(activation, gain, clamp)
    if backend == "reference":
        return torch.empty_like(grad).copy_(bias_act_grad_reference(grad, saved, spec))
    from fastgan.kernels.bias_act import bias_act_grad as kernel

    return kernel(grad, saved, spec)


def _fake(grad: Tensor, *_: object) -> Tensor:
    return torch.empty_like(grad)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, saved, activation, gain, clamp, ctx.backend = inputs
    ctx.activation = Activation(activation, gain, clamp)
    ctx.save_for_backward(grad, saved)


def _backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """With h the cotangent: d grad = h * slope(saved), d saved = h * grad * slope'(saved)."""
    grad, saved = ctx.saved_tensors
    needs_grad, needs_saved = ctx.needs_input_grad[:2]
    by_grad = bias_act_grad_op(cotangent, saved, ctx.activation, ctx.backend) if needs_grad else None
    by_saved = None
    if needs_saved and ctx.activation.is_curved:
        by_saved = (cotangent * grad * slope_derivative(saved, ctx.activation)).to(saved.dtype)
    return by_grad, by_saved, None, None, None, None


_op = register("bias_act_grad", _run, fake=_fake, setup_context=_setup_context, backward=_backward)
