"""Ctrl-C and SIGTERM end a run between two steps, with a checkpoint."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Notes the first SIGINT or SIGTERM while it is entered; a second one acts as usual.

    Enter it in the main thread.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._earlier: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that the signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 0 if self.received is None else 128 + int(self.received)

    def __enter__(self) -> Self:
        self._earlier = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}
