"""No output outside the logging module, no pickle, no unpacking of whole archives, no path of one machine."""

import ast
from collections.abc import Iterator

import pytest

from tests.guards.tree import python_files, report, text_files

LOG_MODULE = "fastgan/train/log.py"
PICKLING_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
# Joined here so that this file does not hold them.
MACHINE_PATHS = ["/".join(("", folder, "")) for folder in ("work", "root")]


def output_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, call) of every `print` and every write to a standard stream."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in {"print", "rich.print", "sys.stdout.write", "sys.stderr.write"}:
                yield node.lineno, name


def unsafe_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) of everything that pickles, may unpickle, or writes wherever an archive says."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, a.name) for a in names if a.name.split(".")[0] in PICKLING_MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in PICKLING_MODULES:
                yield node.lineno, module
            case ast.Call(func=func, keywords=keywords):
                name, options = ast.unparse(func), {k.arg: ast.unparse(k.value) for k in keywords}
                if name == "torch.save" or name.split(".")[-1] in {"extractall", "unpack_archive"}:
                    yield node.lineno, name
                elif name == "torch.load" and options.get("weights_only") != "True":
                    yield node.lineno, "torch.load without weights_only=True"
                elif options.get("allow_pickle", "False") != "False":
                    yield node.lineno, f"{name} with allow_pickle"


def test_only_the_logging_module_writes_to_the_terminal() -> None:
    trees = {path: tree for path, tree in python_files("fastgan", "kernels").items() if path != LOG_MODULE}
    found = [f"{path}:{line} {call}" for path, tree in trees.items() for line, call in output_calls(tree)]
    assert not found, report(f"say it with {LOG_MODULE}", found)


def test_nothing_pickles_or_unpacks_blindly() -> None:
    trees = python_files("fastgan", "kernels", "benchmarks", "launch", "tests")
    found = [f"{path}:{line} {what}" for path, tree in trees.items() for line, what in unsafe_calls(tree)]
    assert not found, report("use safetensors for weights, JSON for state, and read archives member by member", found)


@pytest.mark.parametrize("source", ["print(1)", "def f():\n    sys.stderr.write('')"])
def test_output_is_found(source: str) -> None:
    assert len(list(output_calls(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import os, pickle",
        "from pickle import loads",
        "torch.save(x, 'f')",
        "torch.load('f')",
        "torch.load('f', weights_only=False)",
        "np.load('f', allow_pickle=True)",
        "tarfile.open('f').extractall()",
    ],
)
def test_an_unsafe_call_is_found(source: str) -> None:
    assert len(list(unsafe_calls(ast.parse(source)))) == 1


@pytest.mark.parametrize("source", ["torch.load('f', weights_only=True)", "np.load('f', allow_pickle=False)"])
def test_a_safe_call_passes(source: str) -> None:
    assert list(unsafe_calls(ast.parse(source))) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [f"{path}: {token}" for path, text in text_files() for token in MACHINE_PATHS if token in text]
    assert not found, report("name no path of one machine", found)
