"""Where encoded images come from: a folder, or a zip, both optionally with StyleGAN's `dataset.json` in the root.

A source lists its images once, sorted by name, and reads one at a time; any thread and any forked process may read.
"""

import errno
import os
import threading
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from fastgan.data.bad import BadImageError
from fastgan.errors import DataError, did_you_mean

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
LABELS_NAME = "dataset.json"
DIGITS = "digits"
# No encoded image is larger; a damaged or malicious zip may claim to be.
MAX_ENCODED_BYTES = 256 << 20
_DIGITS_PATH = Path(__file__).parent / "digits" / "digits28.zip"


@dataclass(frozen=True)
class Entry:
    """One image: its path relative to the root, with forward slashes, and its encoded size."""

    name: str
    num_bytes: int


class Source(Protocol):
    """Encoded images, `entries` sorted by name."""

    path: str
    entries: list[Entry]

    def read(self, name: str) -> bytes:
        """The encoded image. Raises BadImageError if it cannot be read, DataError if the whole source is gone."""

    def read_labels(self) -> bytes | None:
        """`dataset.json` of the root as stored, None if there is none."""


def open_source(path: str) -> Source:
    """`digits` (the built-in data set), a folder, or a zip file.

    Raises:
        DataError: if `path` does not exist, is something else, or holds no image.
    """
    if path == DIGITS:
        return ZipSource(str(_DIGITS_PATH))
    try:
        location = Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"data.path={path} names a user without a home folder; write the whole path") from error
    try:
        if location.is_dir():
            return FolderSource(path)
        if location.is_file():
            return ZipSource(path)
        siblings = sorted(os.listdir(location.parent)) if location.parent.is_dir() else []
    except OSError as error:
        raise DataError(f"data.path={path} cannot be read: {error.strerror}; check its permissions") from error
    hint = did_you_mean(location.name, [*siblings, DIGITS])
    raise DataError(
        f"data.path={path} does not exist{hint or ';'} give a folder of images, a .zip of images, or {DIGITS}"
    )


class FolderSource:
    """All images below a folder. Hidden files are left out, and links to folders are not followed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._root = Path(path).expanduser()
        sizes: dict[str, int] = {}
        others: list[str] = []
        for folder, subfolders, files in os.walk(self._root, onerror=self._refuse):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for file in files:
                location = Path(folder, file)
                name = location.relative_to(self._root).as_posix()
                if not _is_image(name):
                    others.append(name)
                else:
                    # A dangling link has no size; it is found to be missing when it is read.
                    sizes[name] = location.stat().st_size if location.exists() else 0
        self.entries = _sorted_entries(sizes.items(), path=path, others=others)

    def read(self, name: str) -> bytes:
        location = self._root / name
        try:
            # Reading a pipe or a device would wait for ever.
            if location.exists() and not location.is_file():
                raise BadImageError("it is not a regular file")
            return location.read_bytes()
        except OSError as error:
            raise BadImageError(_describe(error)) from error

    def read_labels(self) -> bytes | None:
        try:
            return (self._root / LABELS_NAME).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{self._root / LABELS_NAME} cannot be read: {error.strerror}") from error

    def _refuse(self, error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}; check its permissions") from error


class ZipSource:
    """All images in a zip file, read in place and never unpacked.

    Every thread of every process opens the file for itself: threads and forked processes that share one handle would
    move each other's position. A handle is closed when its thread ends, or with the source.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = Path(path).expanduser()
        self._local = threading.local()
        try:
            infos = self._handle().infolist()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"data.path={path} is neither a folder nor a readable zip file ({_describe(error)}); "
                f"give a folder of images, a .zip of images, or {DIGITS}"
            ) from error
        files = [info for info in infos if not info.is_dir()]
        images = [(info.filename, info.file_size) for info in files if _is_image(info.filename)]
        others = [info.filename for info in files if not _is_image(info.filename)]
        self.entries = _sorted_entries(images, path=path, others=others)

    def read(self, name: str) -> bytes:
        try:
            handle = self._handle()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"data.path={self.path} can no longer be read: {_describe(error)}") from error
        try:
            if handle.getinfo(name).file_size > MAX_ENCODED_BYTES:
                raise BadImageError(f"it unpacks to more than {MAX_ENCODED_BYTES >> 20} MiB")
            return handle.read(name)
        except BadImageError:
            raise
        except KeyError as error:
            raise BadImageError("it is missing in the zip file") from error
        # A damaged member shows as any error of its decompressor: zlib.error, lzma.LZMAError, RuntimeError, ...
        except Exception as error:
            raise BadImageError(_describe(error)) from error

    def read_labels(self) -> bytes | None:
        handle = self._handle()
        if LABELS_NAME not in handle.NameToInfo:
            return None
        try:
            return handle.read(LABELS_NAME)
        except Exception as error:
            raise DataError(f"{LABELS_NAME} in {self.path} cannot be read: {_describe(error)}") from error

    def _handle(self) -> zipfile.ZipFile:
        handle: zipfile.ZipFile | None = getattr(self._local, "handle", None)
        if handle is None or self._local.process != os.getpid():
            handle = zipfile.ZipFile(self._file)
            self._local.handle = handle
            self._local.process = os.getpid()
        return handle


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _sorted_entries(sizes: Iterable[tuple[str, int]], *, path: str, others: list[str]) -> list[Entry]:
    entries = [Entry(name, num_bytes) for name, num_bytes in sorted(dict(sizes).items())]
    if not entries:
        found = f"{len(others)} other files, e.g. {min(others)!r}" if others else "nothing"
        raise DataError(f"data.path={path} holds no image: found {found}; images end in {', '.join(IMAGE_SUFFIXES)}")
    return entries


def _describe(error: Exception) -> str:
    """One line about `error`, without addresses and without paths that the message names anyway."""
    if isinstance(error, OSError) and error.errno is not None:
        return "the file is missing" if error.errno == errno.ENOENT else os.strerror(error.errno)
    return " ".join(str(error).split()) or type(error).__name__
