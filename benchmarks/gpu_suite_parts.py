"""The parts of the GPU suite: commands in order of importance. Standard library only, as the suite itself."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Without these no part runs; everything else is optional.
NEEDED = ("torch", "numpy", "pydantic", "yaml", "PIL", "safetensors", "rich", "typer", "pytest")
NEEDED_ON_A_GPU = ("triton",)
_SEES_GPU = (
    "import torch; raise SystemExit(0 if torch.cuda.is_available() else f'torch {torch.__version__} sees no GPU')"
)

# Folder of the results that later parts find modules in, if the tree could not be installed.
SITE = "site"


class Context(NamedTuple):
    """Where results go, and whether this is only a try on the CPU. seconds: for one part, fixed when it begins."""

    out: Path
    is_dry_run: bool
    seconds: float = 60.0


class NothingToDoError(Exception):
    """The part does not apply to this tree or this machine; the message says why."""


class Part(NamedTuple):
    """minutes: the most that it may take. commands: run one after the other; the part fails if any of them does."""

    name: str
    minutes: float
    commands: Callable[[Context], list[list[str]]]


def install(context: Context) -> list[list[str]]:
    """What is needed is there; the tree is installed in place; `fastgan doctor` says what it has become."""
    needed = NEEDED if context.is_dry_run else NEEDED + NEEDED_ON_A_GPU
    check = f"import importlib.util as u; missing = [n for n in {needed} if u.find_spec(n) is None]; "
    check += "raise SystemExit(f'missing: {missing}; carry their wheels along' if missing else 0)"
    place = ["--site", str(context.out / SITE), *(["--dry-run"] if context.is_dry_run else [])]
    steps = [_python("-c", check), _module("benchmarks.gpu_install", *place), _module("fastgan", "doctor")]
    return [*steps, *_gpu_check(context)]


def _gpu_check(context: Context) -> list[list[str]]:
    """Fails where torch would quietly take the CPU instead; a try on the CPU needs none."""
    return [] if context.is_dry_run else [_python("-c", _SEES_GPU)]


def tests(context: Context) -> list[list[str]]:
    """Those marked gpu, kernels before all; a try only collects them."""
    # Another version of torch may warn where the pinned one does not.
    pytest = _module("pytest", "-q", "-W", "default", "-p", "no:cacheprovider", "-m", "gpu")
    run = [*pytest, *(["--collect-only"] if context.is_dry_run else []), *gpu_test_files(ROOT / "tests")]
    return [*_gpu_check(context), run]


def sanitizer(context: Context) -> list[list[str]]:
    """The tests of the native kernels under compute-sanitizer, which finds accesses out of bounds and races."""
    if context.is_dry_run:
        raise NothingToDoError("not part of a dry run")
    # Where setup.py looks for nvcc, which comes with it.
    home = [str(Path(os.environ["CUDA_HOME"]) / "bin")] if "CUDA_HOME" in os.environ else []
    path = os.pathsep.join([*home, os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    if shutil.which("compute-sanitizer", path=path) is None:
        raise NothingToDoError("no compute-sanitizer in CUDA_HOME, PATH or /usr/local/cuda/bin")
    return [["env", f"PATH={path}", f"PYTHON={sys.executable}", "bash", "launch/sanitize.sh"]]


def measure(*targets: str) -> Callable[[Context], list[list[str]]]:
    """Benchmarks of `targets`, which share the part's time; each leaves a record, and a report of all so far."""

    def commands(context: Context) -> list[list[str]]:
        # A case that has begun is finished: its time, the start and the record come on top.
        seconds = f"{0.7 * context.seconds / len(targets):.0f}"
        how = ["--quick", "--device", "cpu"] if context.is_dry_run else ["--device", "cuda"]
        out = str(context.out / "records")
        return [_module("benchmarks.suite", target, "--seconds", seconds, "--out", out, *how) for target in targets]

    return commands


# The most important ones first. The minutes are those of the usual budget; they grow with it, and where few parts run.
USUAL_MINUTES = 8.0
PARTS = (
    Part("install", 1.5, install),
    Part("tests", 2.0, tests),
    Part("sanitizer", 1.0, sanitizer),
    Part("conv", 2.5, measure("conv_transpose2d", "conv2d")),
    Part("gradient_penalty", 1.0, measure("gradient_penalty")),
    Part("spectral_norm", 0.7, measure("spectral_norm")),
    Part("step", 1.5, measure("train_step")),
    Part("bias_act", 0.7, measure("bias_act")),
    Part("compiled_step", 1.5, measure("compiled_step")),
    Part("step_parts", 0.7, measure("step_parts")),
    Part("parallel", 0.7, measure("parallel")),
    Part("policies", 0.7, measure("policies")),
    Part("data", 0.7, measure("data")),
)


def gpu_test_files(folder: Path) -> list[str]:
    """Test files that mark a test with gpu, seen from the checkout; others need not be importable on that machine."""
    files = [path for path in sorted(folder.rglob("test_*.py")) if _has_gpu_mark(path)]
    return [path.relative_to(folder.parent).as_posix() for path in files]


def _has_gpu_mark(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.gpu" for node in ast.walk(tree))


def _module(*arguments: str) -> list[str]:
    return _python("-m", *arguments)


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]
