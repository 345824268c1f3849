"""Imports point downwards, `import fastgan` stays light, and the bare name `kernels` is never imported."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.guards.tree import ROOT, python_files, report, text_files

LAYERS = (
    ("errors",),
    ("rng", "kernels", "native", "dist"),
    ("ops",),
    ("nn",),
    ("models", "objectives", "schedule", "parallel", "data", "augment", "metrics", "export"),
    ("simulate",),
    ("train",),
    ("cli", "presets"),
    ("__main__",),
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
# `fastgan/__init__.py` stands above all layers: it may name anything, deferred, and nothing below may import it.
TOP = "__init__"
NAMES_OF_TOP = {"__version__"}


def part_of(path: str) -> str:
    """The part that a file belongs to: `ops` for fastgan/ops/conv2d.py, `kernels` for kernels/conv2d.py."""
    folders = path.removesuffix(".py").split("/")
    return folders[0] if folders[0] == "kernels" else folders[1]


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, also deferred ones, type-checking ones and constant `import_module`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(level=0, module=str(module), names=names):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case ast.ImportFrom(level=level):
                yield node.lineno, "." * level
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module


def upward_imports(path: str, tree: ast.Module) -> Iterator[str]:
    """One sentence for every import of `path` that the layers do not allow."""
    part = part_of(path)
    for line, module in imported_modules(tree):
        package, _, rest = module.partition(".")
        target = rest.split(".")[0] or TOP
        if module.startswith("."):
            yield f"{path}:{line} imports relatively; write the absolute name"
        elif package != "fastgan" or part in {target, TOP} or target in NAMES_OF_TOP:
            continue
        elif target == TOP:
            yield f"{path}:{line} imports the package itself; only `from fastgan import __version__` is right"
        elif target not in LAYER_OF:
            yield f"{path}:{line} imports {module}, which is in no layer; name its part: fastgan.PART"
        elif LAYER_OF[target] >= LAYER_OF[part]:
            yield f"{path}:{line} imports {module}: layer {LAYER_OF[part]} must import from lower layers only"


def test_every_part_has_a_layer() -> None:
    parts = {part_of(path) for path in python_files("fastgan", "kernels")} - {TOP}
    assert parts <= LAYER_OF.keys(), f"put into LAYERS of {__file__}: {sorted(parts - LAYER_OF.keys())}"


def test_every_folder_of_modules_is_a_package() -> None:
    paths = python_files("fastgan", "kernels").keys()
    missing = {f"{path.rpartition('/')[0]}/__init__.py" for path in paths} - paths
    assert not missing, report("add, or an installation leaves the folder out", sorted(missing))


def test_imports_point_downwards() -> None:
    trees = python_files("fastgan", "kernels")
    found = [finding for path, tree in trees.items() for finding in upward_imports(path, tree)]
    assert not found, report("import downwards only", found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("fastgan/ops/a.py", "from fastgan.nn import conv"),
        ("fastgan/ops/a.py", "def f():\n    import fastgan.train.loop"),
        ("fastgan/rng.py", "import os, fastgan.native"),
        ("kernels/a.py", "from fastgan import ops"),
        ("fastgan/data/a.py", "from fastgan.models.dcgan import Generator"),
        ("fastgan/data/a.py", "from .zip import read"),
        ("fastgan/train/a.py", "import fastgan"),
        ("fastgan/train/a.py", "import importlib\nimportlib.import_module('fastgan.cli')"),
    ],
)
def test_a_wrong_import_is_found(path: str, source: str) -> None:
    assert len(list(upward_imports(path, ast.parse(source)))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("fastgan/ops/a.py", "from fastgan.kernels import conv2d"),
        ("fastgan/data/a.py", "from fastgan.data.zip import read"),
        ("fastgan/train/a.py", "from fastgan import __version__, rng"),
        ("fastgan/__init__.py", "def f():\n    from fastgan.train import loop"),
    ],
)
def test_a_right_import_passes(path: str, source: str) -> None:
    assert list(upward_imports(path, ast.parse(source))) == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("fastgan", {"torch", "triton", "numpy"}),
        ("fastgan.__main__", {"torch", "triton"}),
        ("fastgan.schedule", {"torch", "triton", "numpy"}),
        ("fastgan.simulate", {"torch", "triton", "matplotlib"}),
        ("fastgan.ops", {"triton"}),
    ],
)
def test_the_import_stays_light(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert heavy & set(done.stdout.split()) == set()


def test_the_bare_name_kernels_is_never_imported() -> None:
    bare = re.compile(r"^\W*(import|from) kernels\b", re.MULTILINE)
    found = [path for path, text in text_files() if bare.search(text)]
    trees = python_files("fastgan", "kernels", "benchmarks", "launch", "tests")
    found += [
        p for p, tree in trees.items() for _, module in imported_modules(tree) if module.split(".")[0] == "kernels"
    ]
    assert not found, report("import fastgan.kernels, the bare name belongs to another distribution", found)
