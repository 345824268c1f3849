"""Which implementation serves the ops of csrc/: spectral norm, gradient penalty, interpolation.

native         the CUDA library
triton         the same kernels in Triton, for a GPU without the library
reference      plain PyTorch, the definition of the op
auto           on a CPU the reference; on a GPU the first of the three that can serve

What is asked of every kernel, also those of `fastgan.ops.choice`, stands here.
"""

import importlib.util
import os

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastgan import native
from fastgan.errors import ImplementationError, did_you_mean

IMPLEMENTATIONS = ("auto", "native", "triton", "reference")
OPS = ("gradient_penalty", "interpolate", "spectral_norm")

# Looked up once: torch.compile cannot trace the look-up before torch 2.12.
HAS_TRITON = importlib.util.find_spec("triton") is not None


def choose_native(op: str, impl: str, like: Tensor) -> str:
    """Name of the implementation for tensors such as `like`.

    Raises:
        ValueError: if `impl` is not a known name.
        ImplementationError: if a forced implementation cannot serve, with the reason.
    """
    if impl not in IMPLEMENTATIONS:
        rule = f"must be one of {', '.join(IMPLEMENTATIONS)}"
        raise ValueError(f"{op}: impl={impl!r} {rule}{did_you_mean(impl, IMPLEMENTATIONS)}")
    if impl == "auto":
        if like.device.type != "cuda":
            return "reference"
        return next(name for name in IMPLEMENTATIONS[1:] if _problem(name, like) is None)
    problem = _problem(impl, like)
    if problem is not None:
        raise ImplementationError(f"{op}: impl={impl} cannot serve: {problem}; or use impl=auto")
    return impl


def explanations() -> dict[str, str]:
    """For every op, the implementation that `auto` takes and why."""
    if not torch.cuda.is_available():
        return dict.fromkeys(OPS, "reference: no GPU, and the kernels need one")
    like = torch.empty(0, device="cuda")
    chosen = choose_native("doctor", "auto", like)
    why = {"native": native.build_record(), "triton": f"{_problem('native', like)}", "reference": "no kernel can serve"}
    return dict.fromkeys(OPS, f"{chosen}: {why[chosen]}; float64, forward-mode derivatives and torch.func: reference")


def _problem(impl: str, like: Tensor) -> str | None:
    """Why `impl` cannot serve tensors such as `like`; None if it can."""
    if impl == "reference":
        return None
    if like.dtype not in native.DTYPES:
        return f"dtype {like.dtype} must be one of {', '.join(map(str, native.DTYPES))}"
    missing = native.unavailable(like.device) if impl == "native" else triton_problem(like.device)
    return missing or transform_limit()


def transform_limit() -> str | None:
    """Why no kernel can serve what torch is doing with the call, or None."""
    # A custom op drops tangents without a word: its forward-mode derivative would be zero.
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation; the kernels have backward derivatives only"
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func; the kernels know none"
    return None


def triton_problem(device: torch.device) -> str | None:
    """Why Triton's kernels cannot run on `device`, with the remedy; None if they can."""
    if not HAS_TRITON:
        return "triton is not installed: pip install triton"
    if device.type == "cuda":
        return native.too_old(device)
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return (
        f"the tensors are on {device}; move them to a GPU, or for tests set TRITON_INTERPRET=1 before the first import"
    )
