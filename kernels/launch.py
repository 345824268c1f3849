"""What the kernels' host sides share: memory formats, output buffers, and the interpreter's limits.

Shape legend: N batch, C channels, H W pixels.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
import triton
from torch import Tensor

from fastgan.kernels.configs import TOGETHER, Tile
from fastgan.kernels.spec import Activation, saved_clamp

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# Whether kernels run in Triton's interpreter, on CPU tensors: decided when Triton's decorators run, at import.
INTERPRETED: bool = triton.knobs.runtime.interpret

INT32_MAX = 2**31 - 1

# The fewest products in a sum that tensor cores form.
MIN_BLOCK_K = 16

# The most that a thread can have. Without a bound, ptxas spills a few registers to fit more programs onto a GPU core.
MAX_REGISTERS = 255


def on_its_gpu(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """`function`, for which the GPU of its first argument, a tensor or several, is the current one.

    Triton launches on the current GPU, wherever the tensors lie, and no custom op changes it.
    """

    @functools.wraps(function)
    def run(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        first: Any = arguments[0]
        with torch.cuda.device_of(first if isinstance(first, Tensor) else first[0]):  # type: ignore[no-untyped-call]
            return function(*arguments, **named)

    return run


def readable(x: Tensor) -> Tensor:
    """`x` where neighbouring channels are neighbours in memory, else a copy in channels_last."""
    return x if x.shape[1] == 1 or x.stride(1) == 1 else x.contiguous(memory_format=torch.channels_last)


def with_strides_of(x: Tensor, like: Tensor) -> Tensor:
    """`x`, or a copy of it with the strides of `like`, which has its shape and no overlap."""
    return x if x.stride() == like.stride() else torch.empty_like(like, dtype=x.dtype).copy_(x)


def dense_channels_last(x: Tensor) -> Tensor:
    """A copy of `x` whose strides follow from its shape alone."""
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def new_output(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Unset memory in channels_last, in the dtype that kernels can store.

    The interpreter cannot multiply bfloat16, and it rounds towards zero: there kernels compute and store float32, which
    `finished` rounds.
    """
    dtype = torch.float32 if upcasts(like) else like.dtype
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def finished(y: Tensor, like: Tensor) -> Tensor:
    """`y` in the dtype of `like`."""
    return y.to(like.dtype)


def upcasts(x: Tensor) -> bool:
    """Whether kernels must convert operands like `x` to float32 right after loading them."""
    return INTERPRETED and x.dtype == torch.bfloat16


def input_precision(x: Tensor) -> str:
    """How float32 products are formed: as torch's setting for convolutions says, exactly in the interpreter."""
    uses_tf32 = x.dtype == torch.float32 and torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    return "tf32" if uses_tf32 and not INTERPRETED else "ieee"


class Call:
    """The operands of one convolution, in layouts that the kernels read well, as lists of kernel arguments.

    Args: as in `fastgan.ops.convolution.Operands`.
    """

    def __init__(  # noqa: PLR0917 - the operands in the order of the custom op
        self,
        x: Tensor,
        weight: Tensor,
        gate: Tensor | None,
        scale: Tensor | None,
        bias: Tensor | None,
        noise: Tensor | None,
    ) -> None:
        self.x, self.gate = readable(x), gate
        if gate is not None and gate.stride() != self.x.stride():
            self.x, self.gate = (dense_channels_last(tensor) for tensor in (x, gate))
        # Either channel may be the one whose neighbours are neighbours in memory.
        self.weight = weight if 1 in weight.stride()[:2] else weight.contiguous(memory_format=torch.channels_last)
        self.scale, self.noise = scale, noise
        self.bias = None if bias is None else bias.contiguous()

    @property
    def scales_and_adds(self) -> bool:
        """Whether the epilogue reads both a scale for each image and noise."""
        return self.scale is not None and self.noise is not None

    def pointers(self, out: Tensor) -> list[Tensor | None]:
        """x, gate, weight, scale, bias, noise, out."""
        return [self.x, self.gate, self.weight, self.scale, self.bias, self.noise, out]

    def strides(self, out: Tensor, *, transposed: bool) -> list[int]:
        """Those of x, weight [out, in, y, x], scale, noise as broadcast, and out."""
        first, second, *taps = self.weight.stride()
        channels = [second, first] if transposed else [first, second]
        scale = [0, 0] if self.scale is None else self.scale.stride()
        noise = [0] * 4 if self.noise is None else self.noise.expand(out.shape).stride()
        return [*self.x.stride(), *channels, *taps, *scale, *noise, *out.stride()]

    def numbers(self, activation: Activation, gate_activation: Activation) -> list[float | None]:
        """gain, clamp, gate_gain, gate_clamp."""
        gate_clamp = saved_clamp(gate_activation, self.x.dtype)
        return [activation.gain, activation.clamp, gate_activation.gain, gate_clamp]

    def constants(self, tile: Tile) -> dict[str, Any]:
        """The tile and what else is fixed at compilation, by name; pixels are the kernels' own matter."""
        return {
            "BLOCK_N": tile.n,
            "BLOCK_K": tile.block_k(self.x.element_size()),
            "num_warps": tile.num_warps,
            "num_stages": tile.num_stages,
            "maxnreg": MAX_REGISTERS,
            "UPCAST": upcasts(self.x),
            "PRECISION": input_precision(self.x),
        }

    def pointer_constants(self, tile: Tile, *, num_pixels: int) -> dict[str, Any]:
        """`constants` of a kernel that addresses single pixels, and single channels unless they come together."""
        constants = self.constants(tile)
        if self.x.shape[1] % TOGETHER:
            constants["BLOCK_K"] = MIN_BLOCK_K
        return constants | {"BLOCK_M": tile.m, "WIDE": num_pixels + tile.m > INT32_MAX}
