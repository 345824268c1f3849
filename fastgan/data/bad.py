"""Images that cannot be read: named in a warning, counted, and an error above a limit."""

import threading
from collections.abc import Callable, Iterable

from fastgan.errors import DataError

# After this many warnings the rest is only counted, so that a large data set does not flood the log.
_NUM_NAMED = 10


class BadImageError(Exception):
    """One image cannot be read; its text is the reason. Whoever reads images catches it and counts."""


class BadImages:
    """The names of the images that could not be read, shared by all threads that read.

    Args:
        path: the data set, for messages.
        num_listed: images in the data set, good and bad.
        max_fraction: share of `num_listed` that may be bad.
        on_warning: gets one line per bad image, for the first ten; may be called from any thread, by one at a time.
    """

    def __init__(self, path: str, *, num_listed: int, max_fraction: float, on_warning: Callable[[str], None]) -> None:
        self._path = path
        self._num_listed = num_listed
        self._max_fraction = max_fraction
        self._on_warning = on_warning
        self._names: set[str] = set()
        self._example = ""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def add(self, bad: Iterable[tuple[str, str]]) -> None:
        """Counts (name, reason) pairs; a name counts once.

        Raises:
            DataError: if more than `max_fraction` of the images are bad now, or all of them.
        """
        with self._lock:
            for name, reason in bad:
                if name not in self._names:
                    self._names.add(name)
                    self._example = self._example or f"{name!r} ({reason})"
                    self._warn(name, reason)
            # Also for names known before: the error may have been raised in a thread whose result nobody took.
            self._check_limit()

    def _warn(self, name: str, reason: str) -> None:
        if len(self._names) <= _NUM_NAMED:
            self._on_warning(f"image {name!r} in {self._path} is skipped: {reason}")
        elif len(self._names) == _NUM_NAMED + 1:
            self._on_warning(f"more than {_NUM_NAMED} images in {self._path} are skipped; the others are only counted")

    def _check_limit(self) -> None:
        num_bad, num_listed = len(self._names), self._num_listed
        if num_bad == num_listed:
            raise DataError(f"none of the {num_listed} images in {self._path} can be read, e.g. {self._example}")
        if num_bad > self._max_fraction * num_listed:
            raise DataError(
                f"{num_bad} of {num_listed} images in {self._path} cannot be read, e.g. {self._example}; that is above "
                f"data.max_bad_fraction={self._max_fraction:g}: repair or remove them, or raise the limit"
            )
