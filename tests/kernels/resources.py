"""Compiles kernels for GPUs that are not there, and reads what they need.

The kernels' own host functions run on CPU tensors, with the launch replaced by a compilation for a target, so that what
is compiled is exactly what would be launched: same types, same specialisations, same configuration.

Registers and stack come from the machine code; a register that is spilled lies on the stack. The instructions are read
in PTX, which is translated one by one (mma.sync to HMMA, wgmma to HGMMA, tcgen05.mma to UTCHMMA): disassembling takes
as long as compiling.
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

TENSOR_CORES = re.compile(r"\b(mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b")
TENSOR_COPY = "cp.async.bulk.tensor"
USAGE = re.compile(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)")

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
    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [cuobjdump, "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage, ptx = USAGE.search(report), kernel.asm["ptx"]
    assert usage is not None, report
    registers, stack, local = map(int, usage.groups())
    return {
        "registers": registers,
        "shared_bytes": kernel.metadata.shared,
        "stack_bytes": stack + local,
        "tensor_cores": sorted(set(TENSOR_CORES.findall(ptx))),
        "tma": TENSOR_COPY in ptx,
    }
