"""What a person reads: the only module that writes to the terminal. Plain text, nothing is parsed as markup."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str) -> None:
    """Write `text` as one line to stdout."""
    _write(text, sys.stdout)


def warn(text: str) -> None:
    """Write "warning: `text`" as one line to stderr."""
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
