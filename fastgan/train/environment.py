"""Where a run happens: versions, CPU, GPUs. No host name and no user name."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from fastgan import __version__, native
from fastgan.ops import implementations

CORE_PACKAGES = ("torch", "numpy", "pydantic", "safetensors", "pillow", "PyYAML", "rich", "typer", "matplotlib")
# Those of the extras are added; these have no extra of their own.
OPTIONAL_PACKAGES = ("triton",)
CPU_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


def environment() -> dict[str, Any]:
    """The facts that a measurement or a run depends on, ready for JSON; None stands for what is not there."""
    return {
        "fastgan": __version__,
        "git_commit": git_commit(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        # Torch's own word says which build it is, with or without CUDA.
        "packages": {name: package_version(name) for name in CORE_PACKAGES} | {"torch": torch.__version__},
        "optional_packages": {name: package_version(name) for name in [*OPTIONAL_PACKAGES, *extra_packages()]},
        "cpu": cpu_facts(),
        "gpus": gpu_facts(),
        "gpu_driver": gpu_driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "native_library": native.build_record(),
        "ops": implementations(),
    }


def package_version(name: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def extra_packages() -> dict[str, str]:
    """Package -> the extra of fastgan that installs it, leaving out what only the tests need."""
    try:
        requirements = importlib.metadata.requires("fastgan") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    pattern = re.compile(r"""^(?P<name>[\w.-]+)[^;]*;.*extra == ['"](?P<extra>[\w-]+)['"]""")
    found = [match for match in map(pattern.match, requirements) if match is not None]
    return {match["name"]: match["extra"] for match in found if match["extra"] != "test" and match["name"] != "fastgan"}


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout whose root is `folder`, with "-dirty" if tracked files differ; None if it is none."""
    # Without this look, git would answer for a repository that happens to contain an installed fastgan.
    if not (folder / ".git").exists():
        return None
    return _run(["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])


def cpu_facts() -> dict[str, Any]:
    """Model, physical cores, the threads torch uses, the widest vectors it uses, and instructions for bf16."""
    text = _read(Path("/proc/cpuinfo"))
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", text, re.MULTILINE)
    cores = set(re.findall(r"^physical id\s*: (\d+)$.*?^core id\s*: (\d+)$", text, re.MULTILINE | re.DOTALL))
    known = set(flags[1].split()) if flags else set()
    return {
        "model": model[1] if model else platform.processor() or platform.machine(),
        "num_cores": len(cores) or os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "bf16_instructions": [flag for flag in CPU_BF16_FLAGS if flag in known],
    }


def gpu_facts() -> list[dict[str, Any]]:
    """Name, compute capability and memory of every GPU that torch can use."""
    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append(
            {
                "name": properties.name,
                "compute_capability": f"{properties.major}.{properties.minor}",
                "memory_gib": round(properties.total_memory / 2**30, 1),
            }
        )
    return gpus


def gpu_driver() -> str | None:
    """Version of the NVIDIA driver, also where torch cannot use it; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    answer = _run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return answer.splitlines()[0] if answer else None


def _run(command: list[str]) -> str | None:
    """What a command prints; None if it fails, is missing or takes longer than ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
