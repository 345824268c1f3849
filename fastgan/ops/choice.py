"""Which implementation of an op runs: `impl="auto"` or a forced one; nothing falls back in silence."""

from fastgan.errors import did_you_mean
from fastgan.ops import native_choice

IMPLEMENTATIONS = ("auto", "reference")

OPS = ("bias_act", "conv2d", "conv_transpose2d")


def choose_implementation(op: str, impl: str) -> str:
    """Name of the implementation that serves `op` when the caller asks for `impl`.

    Raises:
        ValueError: if `impl` is not a known name.
    """
    if impl not in IMPLEMENTATIONS:
        rule = f"must be one of {', '.join(IMPLEMENTATIONS)}"
        raise ValueError(f"{op}: impl={impl!r} {rule}{did_you_mean(impl, IMPLEMENTATIONS)}")
    return "reference"


def implementations() -> dict[str, str]:
    """For every op, the implementation that `auto` takes and why."""
    plain = dict.fromkeys(OPS, "reference: plain PyTorch is the only implementation of this op")
    return dict(sorted((plain | native_choice.explanations()).items()))
