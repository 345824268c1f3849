"""The CUDA sources for every target without spills, the build record, and CUDA's refusal on a machine without a GPU."""

import ctypes
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastgan import native
from fastgan.errors import ImplementationError
from tests.guards.tree import ROOT

KERNELS = {
    "bilinear_sums",
    "bilinear_tiles",
    "chunk_squares",
    "interpolate_chunks",
    "iterate_columns",
    "iterate_rows",
    "outer_tiles",
    "penalties",
    "scale_chunks",
}
ENTRY = re.compile(r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<target>\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
# 256 threads a block: 64 registers keep four blocks, half of all threads, on a multiprocessor.
MAX_REGISTERS = 64


@pytest.fixture(scope="module")
def setup_module_of_project(monkeypatch_module: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch_module.setattr("setuptools.setup", lambda **_: None)
    spec = importlib.util.spec_from_file_location("project_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def monkeypatch_module():  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def report_of(nvcc: str, target: str, folder: Path) -> list[tuple[str, str, list[int], int]]:
    """(kernel, target, [stack, spill stores, spill loads], registers) of every kernel, from ptxas."""
    command = [nvcc, "-O3", "-std=c++17", "-cubin", "-Xptxas", "-v", f"-arch=sm_{target}", "--output-directory", folder]
    done = subprocess.run([*command, *(ROOT / "csrc").glob("*.cu")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    entries = done.stderr.split("Compiling entry function")[1:]
    rows = []
    for text in entries:
        entry, stack, registers = (
            ENTRY.search("Compiling entry function" + text),
            STACK.search(text),
            REGISTERS.search(text),
        )
        assert entry is not None
        assert stack is not None
        assert registers is not None
        rows.append((entry["name"], entry["target"], [int(n) for n in stack.groups()], int(registers[1])))
    return rows


@pytest.mark.parametrize("target", ["80", "90a", "100"])
def test_every_kernel_compiles_without_a_spill(target: str, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on PATH")
    rows = report_of(nvcc, target, tmp_path)
    missing = {kernel for kernel in KERNELS if not any(kernel in name for name, *_ in rows)}
    unknown = {name for name, *_ in rows if not any(kernel in name for kernel in KERNELS)}
    assert (missing, unknown) == (set(), set())
    for name, compiled_for, stack_and_spills, registers in rows:
        assert compiled_for == target
        assert stack_and_spills == [0, 0, 0], name
        assert registers <= MAX_REGISTERS, name


def test_without_nvcc_the_reason_is_kept(setup_module_of_project: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(setup_module_of_project.NotBuilt, match="no nvcc in CUDA_HOME, PATH or /usr/local/cuda/bin"):
        setup_module_of_project.compile_library(Path("unused.so"))


def test_an_nvcc_that_fails_is_a_reason_too(setup_module_of_project: ModuleType, tmp_path: Path) -> None:
    failing = tmp_path / "nvcc"
    failing.write_text("#!/bin/sh\necho 'fatal error: no such GPU' >&2\nexit 1\n")
    failing.chmod(0o755)
    with pytest.raises(setup_module_of_project.NotBuilt, match="nvcc failed: fatal error: no such GPU"):
        setup_module_of_project.run([str(failing)])
    with pytest.raises(setup_module_of_project.NotBuilt, match="did not run"):
        setup_module_of_project.run([str(tmp_path / "absent")])


def test_a_library_that_cannot_be_used_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_RECORD", tmp_path / "native_build.txt")
    monkeypatch.setattr(native, "_LIBRARY", tmp_path / "libfastgan.so")
    assert native.build_record().startswith("not built: this installation has no record")
    (tmp_path / "native_build.txt").write_text("built by nvcc 13.0\n")
    assert native.build_record() == "not built: libfastgan.so is missing; reinstall fastgan on a machine with nvcc"
    with pytest.raises(ImplementationError, match=r"libfastgan\.so is missing"):
        native._library.__wrapped__()
    (tmp_path / "libfastgan.so").write_text("no library")
    with pytest.raises(ImplementationError, match="native library does not load"):
        native._library.__wrapped__()
    monkeypatch.setattr(native, "_LIBRARY", Path(torch._C.__file__))
    with pytest.raises(ImplementationError, match="native library belongs to another version of fastgan; reinstall"):
        native._library.__wrapped__()


def needs_library() -> None:
    if native.build_record().startswith("not built"):
        pytest.skip(f"the native library was {native.build_record()}")


def vectors(*sizes: int) -> list[torch.Tensor]:
    return [torch.zeros(size) for size in sizes]


CALLS: dict[str, Callable[[], object]] = {
    "fastgan_power_iteration": lambda: native.power_iteration_([torch.zeros(2, 3)], vectors(2), vectors(3)),
    "fastgan_bilinear": lambda: native.bilinear([torch.zeros(2, 3)], vectors(2), vectors(3)),
    "fastgan_outer": lambda: native.outer(torch.zeros(1), vectors(2), vectors(3), dtypes=[torch.float32]),
    "fastgan_gradient_penalty": lambda: native.gradient_penalty(torch.zeros(2, 3), center=0.0, one_sided=False),
    "fastgan_scale_samples": lambda: native.scale_samples(torch.zeros(2, 3), *vectors(2, 2)),
    "fastgan_interpolate": lambda: native.interpolate(*[torch.zeros(2, 3)] * 3, weights=torch.zeros(2)),
    "fastgan_check_device": lambda: native._call("fastgan_check_device"),
}


def test_every_entry_point_is_called() -> None:
    assert CALLS.keys() == native._FUNCTIONS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_without_a_gpu_every_entry_point_returns_cudas_error(name: str) -> None:
    needs_library()
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    # 35: no driver, or one that is too old for the build. 100: a driver without a GPU.
    with pytest.raises(
        ImplementationError, match=rf"^{name}: CUDA error (35: CUDA driver version|100: no CUDA-capable)"
    ):
        CALLS[name]()


def test_invalid_layers_are_refused_before_the_gpu_is_asked() -> None:
    needs_library()
    library = native._library()
    none = ctypes.c_void_p()
    assert library.fastgan_spectral_norm_workspace(none, 0) == 0
    assert library.fastgan_bilinear(none, 0, none, none, 0, none) == 1
    assert library.fastgan_error_text(1) == b"invalid argument"
    assert library.fastgan_gradient_penalty(none, 9, 1, 1, 0.0, 0, none, none, none, 0, none) == 1
