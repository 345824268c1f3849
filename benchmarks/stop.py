"""Signals that end a measurement early, as an exception. Standard library only."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(BaseException):
    """A signal has come, which the message names. No Exception: nothing on the way may take it for a failure."""


@contextlib.contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Within, Ctrl-C, SIGTERM or SIGHUP raises StoppedError between two lines of Python; later ones are ignored.

    Afterwards they mean what they meant before.
    """

    def stop(number: int, frame: object) -> None:
        del frame
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise StoppedError(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
