"""What the benchmarks of single ops share: directions, implementations of fastgan, memory formats, random inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.baselines.usual_ops import compiled
from benchmarks.harness import Inputs, Provider, Run
from fastgan.ops import IMPLEMENTATIONS, native_choice, no_weight_gradients

FORWARD, BACKWARD, PENALTY = "forward", "forward and backward", "R1 double backward"
DIRECTIONS = (FORWARD, BACKWARD)
# Of ops that networks under a gradient penalty consist of.
LAYER_DIRECTIONS = (*DIRECTIONS, PENALTY)

Function = Callable[..., Tensor]


def run_of(function: Function, direction: str) -> Run:
    """From [*tensors, cotangent] to the value, and with `BACKWARD` also to the gradients of all tensors.

    With `PENALTY` to what R1 asks of a layer within a discriminator: the gradient by its input, the first tensor, then
    those of that gradient's square by the cotangent, which leads to the layers behind, and by the weight, if any.
    """

    @torch.no_grad()
    def forward(*inputs: Tensor) -> Sequence[Tensor]:
        return (function(*inputs[:-1]),)

    def backward(*inputs: Tensor) -> Sequence[Tensor]:
        *tensors, cotangent = inputs
        y = function(*tensors)
        return (y, *torch.autograd.grad(y, tensors, cotangent))

    def penalty(*inputs: Tensor) -> Sequence[Tensor]:
        *tensors, cotangent = inputs
        cotangent = cotangent.detach().requires_grad_()
        y = function(*tensors)
        with no_weight_gradients():
            (gradient,) = torch.autograd.grad(y, tensors[0], cotangent, create_graph=True)
        wanted = (cotangent, *(tensor for tensor in tensors[1:] if tensor.dim() == 4))
        return (gradient, *torch.autograd.grad(gradient.square().sum(), wanted))

    return {FORWARD: forward, BACKWARD: backward, PENALTY: penalty}[direction]


def op_providers(
    op: str, function: Callable[..., Tensor], usual: Function, direction: str, *, is_quick: bool, num_dims: int = 4
) -> tuple[Provider, ...]:
    """The usual way in channels_last, contiguous and compiled, then every implementation that fastgan lists.

    Args:
        op: its name in `fastgan.ops`.
        function: of fastgan, called with `impl=`.
        usual: the same in plain PyTorch.
        is_quick: leaves out torch.compile.
        num_dims: of the images; other tensors have no memory format to choose.
    """
    providers = [Provider("eager", build=lambda: run_of(usual, direction))]
    if num_dims == 4:
        contiguous = Provider("eager, contiguous", build=lambda: run_of(usual, direction), prepare=to_contiguous)
        providers.append(contiguous)
    by_compiler = Provider("torch.compile", build=lambda: run_of(compiled(usual), direction))
    providers.append(left_out(by_compiler) if is_quick else by_compiler)
    providers += [_of_fastgan(function, direction, impl=impl) for impl in implementations_of(op)]
    return tuple(providers)


def left_out(provider: Provider) -> Provider:
    """A provider by torch.compile with the reason why it has no time in a quick run."""

    def build() -> Run:
        raise RuntimeError("left out of a quick run: to compile takes longer than all the rest")

    return replace(provider, build=build)


def implementations_of(op: str) -> list[str]:
    """Names that `impl=` of the op takes, apart from auto; one that cannot serve says why when it is called."""
    names = native_choice.IMPLEMENTATIONS if op in native_choice.OPS else IMPLEMENTATIONS
    return [name for name in names if name != "auto"]


def _of_fastgan(function: Callable[..., Tensor], direction: str, *, impl: str) -> Provider:
    def forced(*tensors: Tensor) -> Tensor:
        return function(*tensors, impl=impl)

    return Provider(f"fastgan {impl}", build=lambda: run_of(forced, direction))


def to_contiguous(inputs: Inputs) -> Inputs:
    """The same tensors, none of them in channels_last."""
    return tuple(x.detach().contiguous().requires_grad_(x.requires_grad) for x in inputs)


def random_tensor(
    *size: int, seed: int, dtype: torch.dtype, device: torch.device, scale: float = 1.0, requires_grad: bool = True
) -> Tensor:
    """Normal numbers times `scale`, the same on every device; images and weights in channels_last."""
    x = (torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale).to(device=device, dtype=dtype)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(requires_grad)
