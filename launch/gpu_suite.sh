#!/usr/bin/env bash
# Installs the tree, tests it and measures it on a machine with a GPU and without a network, the most important parts
# first, within a time budget. What has been found lies in the output folder at any moment.
#
#   launch/gpu_suite.sh --minutes 8 --out gpu-suite
#   launch/gpu_suite.sh --only conv,step --out again
#   launch/gpu_suite.sh --dry-run --out try            # tiny shapes on the CPU: does the suite itself work?
#
# PYTHON names the interpreter that has torch; it is python3 by default.
set -euo pipefail
here=$(pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec env KINETO_LOG_LEVEL=99 TORCH_CPP_LOG_LEVEL=ERROR PYTHONUNBUFFERED=1 "${PYTHON:-python3}" -m benchmarks.gpu_suite --relative-to "$here" "$@"
