"""What the guard tests read: the files of the checkout, found by walking, without git."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Made by tools and runs, never part of the project. Folders whose name starts with a dot are left out too, but .ci.
_GENERATED = {"__pycache__", "build", "dist", "runs"}


def is_generated(name: str) -> bool:
    """Whether a file or folder of this name is made by a tool."""
    return name in _GENERATED or name.endswith((".egg-info", ".so")) or (name.startswith(".") and name != ".ci")


def walk(folder: Path) -> Iterator[Path]:
    """All files under `folder`, sorted; generated ones and hidden ones left out. None where there is no folder."""
    if not folder.is_dir():  # git keeps no empty folders
        return
    for path in sorted(folder.iterdir()):
        if is_generated(path.name):
            continue
        if path.is_dir():
            yield from walk(path)
        else:
            yield path


def report(remedy: str, findings: list[str]) -> str:
    """The message of a failed guard: what to do, then one finding per line."""
    return "\n".join([f"{remedy}:", *findings])


@cache
def python_files(*folders: str) -> dict[str, ast.Module]:
    """The syntax trees of all Python files under these folders of the checkout, by their path in it."""
    paths = [path for folder in folders for path in walk(ROOT / folder) if path.suffix == ".py"]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def text_files() -> Iterator[tuple[str, str]]:
    """(path in the checkout, text) of every file that is UTF-8 text."""
    for path in walk(ROOT):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        yield path.relative_to(ROOT).as_posix(), text
