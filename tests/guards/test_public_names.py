"""The public names of every package equal a written list, so that none changes by accident."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.guards.tree import python_files, report

LIST = Path(__file__).with_name("public_names.txt")


def package_of(path: str) -> str:
    """`fastgan.ops` for fastgan/ops/__init__.py; the folder kernels/ is the package fastgan.kernels."""
    name = path.removesuffix("/__init__.py").replace("/", ".")
    return f"fastgan.{name}" if name.split(".")[0] == "kernels" else name


def public_names(tree: ast.Module) -> list[str]:
    """What `__all__` lists, or nothing."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return [str(name) for name in ast.literal_eval(value)]
    return []


def imported_without_all(path: str, tree: ast.Module) -> Iterator[str]:
    """Public names that `path` takes from elsewhere in the project without listing them in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastgan."):
            names = {alias.asname or alias.name for alias in node.names} - set(public_names(tree))
            yield from (f"{path}: {name}" for name in sorted(names) if not name.startswith("_"))


def packages() -> dict[str, ast.Module]:
    """The `__init__.py` of every package, by its path."""
    trees = python_files("fastgan", "kernels")
    return {path: tree for path, tree in trees.items() if path.endswith("__init__.py")}


def test_public_names_equal_the_written_list() -> None:
    names = sorted(f"{package_of(path)}: {name}" for path, tree in packages().items() for name in public_names(tree))
    written = LIST.read_text(encoding="utf-8").splitlines()
    added = [f"+ {line}" for line in names if line not in written]
    removed = [f"- {line}" for line in written if line not in names]
    remedy = f"undo the change, or if it is meant, change {LIST.name} with it"
    assert not added + removed, report(remedy, added + removed)
    assert names == written, f"{LIST.name} must be sorted and without doubles"


def test_a_package_lists_what_it_imports() -> None:
    found = [name for path, tree in packages().items() for name in imported_without_all(path, tree)]
    assert not found, report("put it into __all__", found)


def test_names_are_read_from_the_source() -> None:
    tree = ast.parse("from fastgan.a import b, c\n__all__ = ['b']")
    assert (public_names(tree), list(imported_without_all("p", tree))) == (["b"], ["p: c"])
    assert package_of("kernels/__init__.py") == "fastgan.kernels"
