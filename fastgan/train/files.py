"""Files that are either old or new, never half-written."""

from __future__ import annotations

import os
from pathlib import Path

from fastgan.errors import RunFolderError


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` beside `path` under a temporary name, then rename it onto `path`.

    Raises:
        RunFolderError: `path` names no file, or the folder cannot be written. It is then unchanged, without a temporary
            file.
    """
    if not path.name:
        raise RunFolderError(f"cannot write {str(path)!r}: it is a folder; give the path of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunFolderError(
            f"cannot write {path}: {error.strerror}; free the path or choose another folder"
        ) from error


def make_folder(path: Path) -> Path:
    """The folder `path`, made if it is missing; its parent must exist.

    Raises:
        RunFolderError: the folder cannot be made, or a file stands in its place.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot make the folder {path}: {error.strerror}; move what is in its way") from error
    return path
