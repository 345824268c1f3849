"""Which implementation of an op runs: `impl="auto"` or a forced one; nothing falls back in silence.

reference      plain PyTorch, the definition of the op
triton         one fused Triton kernel
cudnn_fused    PyTorch's convolution (cuDNN on a GPU) with the epilogue as one Triton kernel
auto           on a CPU the reference; on a GPU the fastest by measurement, where all three are candidates

What the kernels cannot do, `auto` leaves to the reference; `fastgan doctor` prints the list.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.errors import ImplementationError, did_you_mean
from fastgan.ops import measured, native_choice

IMPLEMENTATIONS = ("auto", "reference", "triton", "cudnn_fused")
VARIABLE = "FASTGAN_IMPL"

# The ops that choose here; those of csrc/ choose in `fastgan.ops.native_choice`.
ELEMENTWISE_OPS = ("bias_act", "bias_act_grad")
CONVOLUTION_OPS = ("conv2d", "conv2d_weight_grad", "conv_transpose2d")
KERNEL_OPS = (*ELEMENTWISE_OPS, *CONVOLUTION_OPS)


class Case(NamedTuple):
    """One call of an op, as far as the choice needs to know it; texts are made only when they are read."""

    op: str
    inputs: tuple[Tensor, ...]
    limit: Callable[[], str | None]
    shape_class: Callable[[], str]


def choose(case: Case, impl: str, run: Callable[[str], Tensor]) -> str:
    """Name of the implementation that serves this call when the caller asks for `impl`.

    `auto` takes what the environment variable FASTGAN_IMPL names, if it is set.

    Args:
        run: computes the op by the implementation of the given name, for measuring.
    Raises:
        ValueError: if `impl` is not a known name.
        ImplementationError: if a forced implementation cannot run here or on these arguments.
    """
    check_name(f"{case.op}: impl", impl)
    asked_by, remedy = "impl", "use impl=auto"
    if impl == "auto":
        impl, asked_by, remedy = _forced(), VARIABLE, f"unset {VARIABLE}"
    if impl == "auto":
        return _fastest(case, run)
    reason = None if impl == "reference" else unavailable(impl, case.inputs[0].device) or _limit(case)
    if reason is not None:
        raise ImplementationError(f"{case.op}: {asked_by}={impl} cannot serve: {reason}; or {remedy}")
    return impl


def unavailable(impl: str, device: torch.device) -> str | None:
    """Why `impl` cannot run on `device`, with the remedy; None if it can."""
    return None if impl == "reference" else native_choice.triton_problem(device)


def implementations() -> dict[str, str]:
    """For every op, the implementation that `auto` takes and why."""
    explained = {op: _explanation(op) for op in KERNEL_OPS}
    return dict(sorted((explained | native_choice.explanations()).items()))


def _explanation(op: str) -> str:
    forced = _forced()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if forced != "auto":
        reason = unavailable(forced, device)
        return f"{forced}: forced by {VARIABLE}" + (f", but it cannot serve: {reason}" if reason else "")
    if device.type == "cpu":
        return "reference: no GPU, and the kernels need one"
    reason = unavailable("triton", device)
    if reason is not None:
        return f"reference: {reason}"
    beyond = "float64, forward-mode derivatives, torch.func and what torch.compile traces: reference"
    if op in CONVOLUTION_OPS:
        sizes = "dilation, stride over 2, kernels other than 1x1, 3x3, 4x4, 6x6, padding in words, unbatched x"
        beyond = f"{sizes}, {beyond}"
    return f"{measured.summary(torch.cuda.get_device_name(), op)}; {beyond}"


def _limit(case: Case) -> str | None:
    """Why no kernel can serve these arguments, or None."""
    return native_choice.transform_limit() or case.limit()


def _fastest(case: Case, run: Callable[[str], Tensor]) -> str:
    """The measured choice on a GPU, made now if there is none; the reference elsewhere."""
    x = case.inputs[0]
    # Tracing and capturing forbid timing, and an empty batch has nothing to time.
    if x.device.type != "cuda" or torch.compiler.is_compiling() or x.numel() == 0:
        return "reference"
    if unavailable("triton", x.device) is not None or _limit(case) is not None:
        return "reference"
    key = measured.Key(torch.cuda.get_device_name(x.device), case.op, _shape_class(case))
    known = measured.lookup(key)
    if known is not None:
        return known
    # Streams and events are those of the current GPU, which need not be the one of `x`.
    with torch.cuda.device(x.device):
        if torch.cuda.is_current_stream_capturing():
            return "reference"
        return measured.measure_and_store(key, run, case.inputs, measured.time_on_gpu)


def _shape_class(case: Case) -> str:
    trains = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in case.inputs)
    return f"{case.shape_class()} {'forward+backward' if trains else 'forward'}"


def check_name(what: str, impl: str) -> None:
    """`impl`, which errors call `what`, is the name of an implementation."""
    if impl not in IMPLEMENTATIONS:
        rule = f"must be one of {', '.join(IMPLEMENTATIONS)}"
        raise ValueError(f"{what}={impl!r} {rule}{did_you_mean(impl, IMPLEMENTATIONS)}")


def _forced() -> str:
    """What the environment variable names; `auto` if it is not set, or empty."""
    impl = os.environ.get(VARIABLE) or "auto"
    try:
        check_name(f"environment variable {VARIABLE}", impl)
    except ValueError as error:
        raise ImplementationError(str(error)) from None
    return impl
