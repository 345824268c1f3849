"""What a person reads: the only module that writes to the terminal. Plain text, nothing is parsed as markup."""

from __future__ import annotations

import sys
from typing import TextIO

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


def _write(text: str, stream: TextIO) -> None:
    """Print through rich, so that a live progress bar on the same stream is redrawn below the line."""
    # Made per call: the stream is looked up late, so redirection and a live display's replacement are both seen.
    console = Console(file=stream, markup=False, highlight=False, emoji=False, soft_wrap=True)
    console.print(text)
