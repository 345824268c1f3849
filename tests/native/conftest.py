"""Builds the functions that CUDA kernels and CPU share, with the C++ compiler alone."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guards.tree import ROOT

SOURCE = Path(__file__).with_name("host_kernels.cpp")


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """csrc/*.h around plain loops, compiled with every warning as an error and with bounds and overflow checks."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a C++ compiler, such as g++")
    library = tmp_path_factory.mktemp("native") / "host_kernels.so"
    checks = [
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-fsanitize=undefined",
        "-fno-sanitize-recover=all",
    ]
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", *checks, f"-I{ROOT / 'csrc'}", str(SOURCE)]
    done = subprocess.run([*command, "-o", str(library)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(library))
    loaded.host_between.restype = ctypes.c_float
    loaded.host_between.argtypes = (ctypes.c_float,) * 3
    for name in ("host_power_iteration", "host_bilinear", "host_outer", "host_layers_of_tiles"):
        getattr(loaded, name).restype = ctypes.c_int64
    return loaded
