"""Compiles kernels for GPUs that are not there, and reads what they need from the machine code.

The kernels' own host functions run on CPU tensors, with the launch replaced by a compilation for a target, so that what
is compiled is exactly what would be launched: same types, same specialisations, same configuration.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

ARCHITECTURES = (80, 90, 100)
TENSOR_CORES = re.compile(r"\b(HMMA|HGMMA|UTC\w*MMA)\b")
LOCAL_MEMORY = re.compile(r"\b(STL|LDL)\b")
TMA = re.compile(r"\bUTMALDG\b")

Resources = dict[str, Any]


def resources_of(launch: Callable[[], object], architecture: int) -> dict[str, Resources]:
    """Kernel name -> resources, for every kernel that `launch` would run on a GPU of this architecture."""
    compiled: dict[str, Any] = {}
    with _compiling(architecture, compiled):
        launch()
    return {name: _read(kernel) for name, kernel in compiled.items()}


@contextmanager
def _compiling(architecture: int, compiled: dict[str, Any]) -> Iterator[None]:
    target = GPUTarget("cuda", architecture, 32)
    backend = make_backend(target)

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kwargs |= {"debug": False, "instrumentation_mode": ""}
        bind = create_function_from_signature(self.signature, self.params, backend)
        bound, specialization, options = bind(*args, **kwargs)
        options, signature, constants, attributes = self._pack_args(backend, kwargs, bound, specialization, options)
        source = ASTSource(self, signature, constants, attributes)
        compiled[self.__name__] = triton.compile(source, target=target, options=options.__dict__)

    original = JITFunction.run
    JITFunction.run = run
    try:
        yield
    finally:
        JITFunction.run = original


def _read(kernel: Any) -> Resources:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, code = _cuobjdump("--dump-resource-usage", file.name), _cuobjdump("-sass", file.name)
    registers = re.search(r"REG:(\d+)", usage)
    assert registers is not None, usage
    return {
        "registers": int(registers[1]),
        "shared_bytes": kernel.metadata.shared,
        "spills": len(LOCAL_MEMORY.findall(code)),
        "tensor_cores": sorted(set(TENSOR_CORES.findall(code))),
        "tma": bool(TMA.search(code)),
    }


def _cuobjdump(*arguments: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout
