"""`fastgan.ops.conv_transpose2d` against cuDNN or oneDNN, and torch.compile.

Run it with `python -m benchmarks.bench_conv_transpose2d`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.convolutions import convolution_cases
from benchmarks.harness import Case
from benchmarks.runner import Options, main_of


def cases(options: Options) -> Iterator[Case]:
    """Each transposed convolution with its bias and activation: forward, forward and backward, R1 double backward."""
    return convolution_cases(options, transposed=True)


if __name__ == "__main__":
    sys.exit(main_of("conv_transpose2d", cases, description=__doc__))
