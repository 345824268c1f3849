"""The Triton kernels of spectral norm and gradient penalty compile for every target, without local memory."""

import os
import subprocess
import sys

import pytest

from tests.guards.tree import ROOT


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_every_kernel_compiles(architecture: int) -> None:
    pytest.importorskip("triton")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.native.compile_triton", str(architecture)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 18
    assert [row for row in rows if int(row[2]) == 0 or int(row[3])] == []
