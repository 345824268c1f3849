"""What a person reads: the only module that writes to the terminal. Plain text, nothing is parsed as markup."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


_quiet_depth = 0


@contextmanager
def quiet(is_quiet: bool = True) -> Iterator[None]:
    """While entered with true, `say` and `warn` write nothing: what one rank has said need not be said by all."""
    global _quiet_depth  # noqa: PLW0603 - the terminal is one for the process
    _quiet_depth += is_quiet
    try:
        yield
    finally:
        _quiet_depth -= is_quiet


def say(text: str) -> None:
    """Write `text` as one line to stdout."""
    if not _quiet_depth:
        _write(text, sys.stdout)


def warn(text: str) -> None:
    """Write "warning: `text`" as one line to stderr."""
    if not _quiet_depth:
        _write(f"warning: {text}", sys.stderr)


def fail(text: str) -> None:
    """Write "error: `text`" as one line to stderr. It does not end the program: the caller picks the exit code."""
    _write(f"error: {text}", sys.stderr)


def terminal_console() -> Console:
    """A console on today's stdout, for a live display."""
    from rich.console import Console

    return Console(file=sys.stdout)


def _write(text: str, stream: TextIO) -> None:
    """One whole line, flushed: a live display that has replaced the stream then puts it above itself."""
    # A rich console is not used here: it would reach through the display's replacement to the stream below it.
    stream.write(f"{text}\n")
    stream.flush()
