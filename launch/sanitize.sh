#!/usr/bin/env bash
# The CUDA library's tests under compute-sanitizer: wrong addresses, races in shared memory, unset memory, barriers.
# Needs a GPU, the CUDA toolkit, and an installation with the native library. Stops at the first tool that finds something.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"

"$python" - <<'PYTHON'
import sys

import torch

from fastgan import native

problem = native.unavailable(torch.device("cuda")) if torch.cuda.is_available() else "torch sees no GPU"
sys.exit(f"the native library cannot run: {problem}" if problem else 0)
PYTHON

for tool in memcheck racecheck initcheck synccheck; do
    echo "== $tool"
    # Only our kernels: torch's would take hours.
    compute-sanitizer --tool "$tool" --kernel-name kernel_substring=fastgan --target-processes all --error-exitcode 1 \
        "$python" -m pytest -q -p no:cacheprovider tests/native/test_kernels.py -k native
done
