"""Files stay below 400 lines and functions below 40; whoever needs more is named here with the reason."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

from tests.guards.tree import ROOT, python_files, report

FILE_LINES = 400
FUNCTION_LINES = 40
KERNEL_LINES = 120
FOLDERS = ("fastgan", "kernels", "benchmarks", "launch", "tests")


class Allowance(NamedTuple):
    """The file or function must stay below `lines`."""

    lines: int
    reason: str


# "path" for a file, "path::Class.function" for a function.
EXCEPTIONS = {
    "fastgan/train/loop.py::run_loop": Allowance(150, "the training loop is read from top to bottom in one place"),
}


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(qualified name, node) of every function, nested ones and methods included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        name = (
            f"{prefix}{node.name}."
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            else prefix
        )
        yield from functions(node, name)


def is_kernel(path: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is the body of a Triton kernel."""
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    return path.startswith("kernels/") and any(decorator.split("(")[0].endswith("jit") for decorator in decorators)


def sizes() -> Iterator[tuple[str, int, int]]:
    """(name, lines, limit) of every file and function; a function's docstring counts, its decorators do not."""
    for path, tree in python_files(*FOLDERS).items():
        yield path, len((ROOT / path).read_text(encoding="utf-8").splitlines()), FILE_LINES
        for name, node in functions(tree):
            limit = KERNEL_LINES if is_kernel(path, node) else FUNCTION_LINES
            yield f"{path}::{name}", (node.end_lineno or node.lineno) - node.lineno + 1, limit


def test_files_and_functions_are_small() -> None:
    limits = {name: allowance.lines for name, allowance in EXCEPTIONS.items()}
    found = [
        f"{name} has {lines} lines, must be below {limits.get(name, limit)}"
        for name, lines, limit in sizes()
        if lines >= limits.get(name, limit)
    ]
    assert not found, report("split it by idea", found)


def test_every_exception_is_needed_and_has_a_reason() -> None:
    needed = {name for name, lines, limit in sizes() if lines >= limit}
    stale = sorted(EXCEPTIONS.keys() - needed)
    assert not stale, report("remove the stale exceptions", stale)
    assert all(allowance.reason for allowance in EXCEPTIONS.values())


def test_functions_are_found_wherever_they_are() -> None:
    source = "class A:\n    def f(self):\n        def g(): ...\nif x:\n    async def h(): ...\n"
    assert [name for name, _ in functions(ast.parse(source))] == ["A.f", "A.f.g", "h"]
