"""The file map of README.md names every folder and module of the project, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guards.tree import ROOT, is_generated, report, walk

START, END = "<!-- file map -->", "<!-- /file map -->"
FOLDERS = ("fastgan", "kernels", "csrc", "launch", "benchmarks", "tests")
SUFFIXES = {".py", ".cu", ".cuh", ".c", ".h", ".sh", ".sbatch"}


def entries_of_tree(folder: Path, depth: int = 0) -> Iterator[tuple[int, str]]:
    """(depth, path) of a folder with files in it and of all below; a folder's path ends with a slash.

    `__init__.py` stands for its folder and has no line of its own, and of tests/ only the folders have one.
    """
    if not any(walk(folder)):
        return
    path = folder.relative_to(ROOT).as_posix()
    yield depth, f"{path}/"
    for child in sorted(folder.iterdir(), key=lambda child: (child.is_dir(), child.name)):
        if is_generated(child.name):
            continue
        if child.is_dir():
            yield from entries_of_tree(child, depth + 1)
        elif child.suffix in SUFFIXES and child.name != "__init__.py" and not path.startswith("tests"):
            yield depth + 1, f"{path}/{child.name}"


def entries_of_map(readme: str) -> Iterator[str]:
    """The path on each line of the map: two spaces per folder, a name, `#`, a comment.

    Raises:
        ValueError: if the map or a comment is missing, or an indentation leads nowhere.
    """
    if START not in readme or END not in readme:
        raise ValueError(f"README.md must have a fenced block between {START} and {END}")
    folders: list[str] = []
    block = readme.partition(START)[2].partition(END)[0].strip()
    for line in block.splitlines()[1:-1]:
        name, _, comment = (part.strip() for part in line.partition("#"))
        depth, odd = divmod(len(line) - len(line.lstrip()), 2)
        if not comment or odd or depth > len(folders):
            raise ValueError(f"file map: {line!r} must be two spaces per folder, a name, and a # comment")
        folders[depth:] = [name] if name.endswith("/") else []
        yield "".join(folders[:depth]) + name


def line_of(path: str, depth: int) -> str:
    """The line of the map for `path`, its comment left to write."""
    folder = "/" if path.endswith("/") else ""
    return f"{'  ' * depth}{path.rstrip('/').split('/')[-1]}{folder}  # ..."


def test_the_file_map_equals_the_tree() -> None:
    tree = {path: depth for folder in FOLDERS for depth, path in entries_of_tree(ROOT / folder)}
    listed = list(entries_of_map((ROOT / "README.md").read_text(encoding="utf-8")))
    missing = [path for path in tree if path not in listed]
    extra = [path for path in listed if path not in tree]
    doubled = sorted({path for path in listed if listed.count(path) > 1})
    findings = [f"add {path} as the line\n{line_of(path, tree[path])}" for path in missing]
    findings += [f"remove {path}" for path in extra + doubled]
    assert not findings, report("the file map of README.md differs from the tree", findings)


def test_the_map_is_read_with_its_folders() -> None:
    block = f"{START}\n```\na/  # A\n  b.py  # B\n  c/  # C\n    d.py  # D\ne/  # E\n```\n{END}"
    assert list(entries_of_map(block)) == ["a/", "a/b.py", "a/c/", "a/c/d.py", "e/"]


@pytest.mark.parametrize("line", ["a/", "   b.py  # three spaces", "  b.py  # in no folder"])
def test_a_bad_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="file map"):
        list(entries_of_map(f"{START}\n```\n{line}\n```\n{END}"))
