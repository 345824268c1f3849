"""Installs the folder kernels/ as the package fastgan.kernels, and builds csrc/ where there is an nvcc.

Without nvcc, or if it fails, fastgan installs all the same: `fastgan doctor` shows the reason that is written here.
Everything else stands in pyproject.toml.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

SOURCES = "csrc"
LIBRARY = "fastgan/libfastgan.so"
# One line: how the library was built, or why it was not. fastgan/native.py reads it.
RECORD = "fastgan/native_build.txt"
# Machine code for these GPUs; the newest one's PTX serves all that come later. sm_80 also serves 8.6 and 8.9.
TARGETS = ("80", "90a", "100")
FLAGS = (
    "-O3",
    "-std=c++17",
    "-shared",
    "-Xcompiler",
    "-fPIC,-fvisibility=hidden",
    "-cudart",
    "static",
    "--threads",
    "0",
)
TIMEOUT_SECONDS = 600


class NotBuilt(Exception):
    """Why there is no native library."""


class BuildNative(build_ext):
    """Compiles csrc/*.cu with nvcc alone: no torch header, no Python header."""

    def run(self) -> None:
        folder = Path() if self.inplace or self.editable_mode else Path(self.build_lib)
        (folder / RECORD).parent.mkdir(parents=True, exist_ok=True)
        (folder / LIBRARY).unlink(missing_ok=True)
        try:
            record = compile_library(folder / LIBRARY)
        except NotBuilt as reason:
            record = f"not built: {reason}"
        (folder / RECORD).write_text(record + "\n", encoding="utf-8")

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib) / name) for name in (LIBRARY, RECORD)]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return sorted(str(path) for path in Path(SOURCES).iterdir())


def compile_library(library: Path) -> str:
    """Builds the library and returns one line on how. Raises NotBuilt."""
    nvcc = find_nvcc()
    known = run([nvcc, "--list-gpu-code"]).split()
    # The list leaves out the variants: whoever knows sm_90 knows sm_90a.
    targets = [target for target in TARGETS if f"sm_{target.rstrip('a')}" in known]
    if not targets:
        raise NotBuilt(f"{nvcc} knows none of the targets {', '.join(TARGETS)}; install CUDA 12.8 or newer")
    codes = [f"-gencode=arch=compute_{target},code=sm_{target}" for target in targets]
    ptx = [target for target in targets if target.isdigit()][-1:]
    codes += [f"-gencode=arch=compute_{target},code=compute_{target}" for target in ptx]
    sources = sorted(str(path) for path in Path(SOURCES).glob("*.cu"))
    run([nvcc, *FLAGS, *codes, *sources, "-o", str(library)])
    version = re.search(r"release [\d.]+, V([\d.]+)", run([nvcc, "--version"]))
    names = ", ".join([*(f"sm_{target}" for target in targets), *(f"PTX {target}" for target in ptx)])
    return f"built by nvcc {version[1] if version else 'of unknown version'} for {names}"


def find_nvcc() -> str:
    """Path of nvcc: in CUDA_HOME, on PATH, or in its usual place."""
    places = [Path(os.environ["CUDA_HOME"]) / "bin"] if "CUDA_HOME" in os.environ else []
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    found = shutil.which("nvcc", path=path)
    if found is None:
        raise NotBuilt("no nvcc in CUDA_HOME, PATH or /usr/local/cuda/bin when fastgan was installed")
    return found


def run(command: list[str]) -> str:
    """What a command prints. Raises NotBuilt with the first line of its errors."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotBuilt(f"{command[0]} failed: {next((line for line in lines if 'error' in line), lines[0])}")
    return done.stdout


setup(
    packages=[*find_packages(include=["fastgan", "fastgan.*"]), "fastgan.kernels"],
    package_dir={"fastgan.kernels": "kernels"},
    package_data={"fastgan": ["py.typed", "presets/*.yaml", "data/digits/*", "ops/tables/*"]},
    # Named so that setuptools runs the command; the library is plain C, not an extension module.
    ext_modules=[Extension("fastgan.libfastgan", sources=[])],
    cmdclass={"build_ext": BuildNative},
)
