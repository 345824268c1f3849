"""How a run is followed while it trains: stats.jsonl, TensorBoard, and a progress bar or one line a tick."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fastgan.errors import ConfigError
from fastgan.train.log import say, terminal_console
from fastgan.train.stats import StatsFile, rewind_stats

TensorBoardChoice = Literal["auto", "on", "off"]
INSTALL_TENSORBOARD = "pip install 'fastgan[tensorboard]'"
RESERVED_KEYS = frozenset({"images_seen", "seconds", "images_per_second"})


class RunLog:
    """Records the ticks of one run and shows them. Use as a context manager, in one process of a run only.

    >>> with RunLog(run_dir, total_images=250_000) as log:
    ...     log.advance(64)
    ...     log.tick(12_800, {"loss_discriminator": 0.61, "loss_generator": 0.92})
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        total_images: int,
        start_images: int = 0,
        tensorboard: TensorBoardChoice = "auto",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Args:
            run_dir: an existing folder.
            total_images: where the run ends.
            start_images: where this process begins; ticks recorded beyond it are dropped.
            tensorboard: "auto" writes scalars when the package is there, "on" insists, "off" does not.
            clock: seconds from any origin, never going back.
        Raises:
            ConfigError: tensorboard="on" and the package is missing.
            RunFolderError: stats.jsonl cannot be read or written.
        """
        self._events = _open_tensorboard(run_dir, start_images, tensorboard)
        kept = rewind_stats(run_dir, start_images)
        self._stats = StatsFile(run_dir)
        self._view: _View = _ProgressBar(total_images) if _has_terminal() else _PlainLines(total_images)
        self._total_images = total_images
        self._start_images = self._last_images = start_images
        self._clock = clock
        self._start_time = self._last_time = clock()
        self._earlier_seconds = kept[-1]["seconds"] if kept else 0.0

    def __enter__(self) -> Self:
        """Start the clock and the display."""
        self._start_time = self._last_time = self._clock()
        self._view.start(self._start_images)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def advance(self, images_seen: int) -> None:
        """Move the progress bar between ticks; records nothing."""
        self._view.advance(images_seen)

    def tick(self, images_seen: int, stats: Mapping[str, float]) -> None:
        """Record `stats` at `images_seen` and show them.

        Raises:
            ValueError: a key of `stats` is one that the log itself writes.
        """
        if taken := RESERVED_KEYS & stats.keys():
            raise ValueError(f"stats may not hold {sorted(taken)}: the log measures them itself")
        now = self._clock()
        rate = (images_seen - self._last_images) / max(now - self._last_time, 1e-9)
        seconds = self._earlier_seconds + now - self._start_time
        measured = {"seconds": round(seconds, 3), "images_per_second": round(rate, 1)}
        self._stats.append({"images_seen": images_seen, **measured, **stats})
        if self._events is not None:
            for key, value in {"images_per_second": rate, **stats}.items():
                self._events.add_scalar(key, value, images_seen)
        self._view.tick(images_seen, rate, self._seconds_left(images_seen, now), stats)
        self._last_images, self._last_time = images_seen, now

    def image(self, images_seen: int, name: str, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Add a picture to TensorBoard, when it is in use. `array`: uint8 [H, W, 1 or 3]."""
        if self._events is not None:
            self._events.add_image(name, array, images_seen, dataformats="HWC")

    def close(self) -> None:
        """End the display and flush everything; closing twice does nothing."""
        self._view.stop()
        self._stats.close()
        if self._events is not None:
            self._events.close()

    def _seconds_left(self, images_seen: int, now: float) -> float:
        """From the mean speed of this process: a single tick is too noisy (checkpoints, sample grids)."""
        rate = (images_seen - self._start_images) / max(now - self._start_time, 1e-9)
        return max(self._total_images - images_seen, 0) / max(rate, 1e-9)


class SilentLog:
    """Has the methods of `RunLog` and does nothing: for the ranks whose numbers rank 0 records."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Nothing is open."""

    def advance(self, images_seen: int) -> None:
        """Nothing is shown."""

    def tick(self, images_seen: int, stats: Mapping[str, float]) -> None:
        """Nothing is recorded."""

    def image(self, images_seen: int, name: str, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Nothing is recorded."""


class _View(Protocol):
    """What RunLog needs from a display."""

    def start(self, images_seen: int) -> None: ...
    def advance(self, images_seen: int) -> None: ...
    def tick(self, images_seen: int, rate: float, seconds_left: float, stats: Mapping[str, float]) -> None: ...
    def stop(self) -> None: ...


class _PlainLines:
    """One line a tick: for files, pipes and continuous integration."""

    def __init__(self, total_images: int) -> None:
        self._total_images = total_images

    def start(self, images_seen: int) -> None:
        """Nothing is shown before the first tick."""

    def advance(self, images_seen: int) -> None:
        """Nothing is shown between ticks."""

    def tick(self, images_seen: int, rate: float, seconds_left: float, stats: Mapping[str, float]) -> None:
        position = f"images {images_seen:,}/{self._total_images:,}"
        speed = f"{rate:,.0f} images/s  {format_duration(seconds_left)} left"
        say(f"{position}  {speed}  {format_stats(stats)}".rstrip())

    def stop(self) -> None:
        """Nothing is open."""


class _ProgressBar:
    """A live bar at the bottom of the terminal; lines from `say` and `warn` appear above it."""

    def __init__(self, total_images: int) -> None:
        position = TextColumn("{task.completed:,.0f}/{task.total:,.0f} images", markup=False)
        note = TextColumn("{task.fields[note]}", markup=False)
        # A stderr that goes to a file stays out of the terminal.
        self._progress = Progress(
            BarColumn(bar_width=None),
            position,
            note,
            console=terminal_console(),
            expand=True,
            refresh_per_second=4,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._task: TaskID = self._progress.add_task("", total=total_images, note="")

    def start(self, images_seen: int) -> None:
        self._progress.update(self._task, completed=images_seen)
        self._progress.start()

    def advance(self, images_seen: int) -> None:
        self._progress.update(self._task, completed=images_seen)

    def tick(self, images_seen: int, rate: float, seconds_left: float, stats: Mapping[str, float]) -> None:
        losses = {key: value for key, value in stats.items() if key.startswith("loss_")}
        note = f"{rate:,.0f}/s  {format_duration(seconds_left)} left  {format_stats(losses)}"
        self._progress.update(self._task, completed=images_seen, note=note)

    def stop(self) -> None:
        self._progress.stop()


def format_duration(seconds: float) -> str:
    """`2:38`, `1:02:38` or `3d 1:02:38`; `?` when it is more than a thousand days."""
    if not seconds < 1000 * 86400:
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{days}d {clock}" if days else clock


def format_stats(stats: Mapping[str, float]) -> str:
    """`loss_d 0.61 loss_g 0.92`: losses first, three significant digits, the networks by their first letter."""
    ordered = sorted(stats.items(), key=lambda item: not item[0].startswith("loss_"))
    short = {key.replace("discriminator", "d").replace("generator", "g"): value for key, value in ordered}
    return " ".join(f"{key} {value:.3g}" for key, value in short.items())


def _has_terminal() -> bool:
    """Whether stdout can be redrawn. FORCE_COLOR makes rich see a terminal in a pipe, hence both questions."""
    return sys.stdout.isatty() and terminal_console().is_interactive


def check_tensorboard(choice: TensorBoardChoice) -> None:
    """Raises ConfigError if TensorBoard is insisted on and missing."""
    if choice == "on" and not _has_tensorboard():
        raise ConfigError(f"log.tensorboard='on' needs a package that is missing: {INSTALL_TENSORBOARD}")


def _has_tensorboard() -> bool:
    """A folder called tensorboard in the working directory, such as a run's, is found too, but has no file."""
    spec = importlib.util.find_spec("tensorboard")
    return spec is not None and spec.origin is not None


def _open_tensorboard(run_dir: Path, start_images: int, choice: TensorBoardChoice) -> Any:
    """A SummaryWriter on RUN/tensorboard, or None when TensorBoard is not wanted or not there."""
    if choice == "off":
        return None
    check_tensorboard(choice)
    if not _has_tensorboard():
        say(f"TensorBoard is not installed, so only stats.jsonl is written; to have both: {INSTALL_TENSORBOARD}")
        return None
    from torch.utils.tensorboard import SummaryWriter

    # TensorBoard hides what an earlier process wrote from this step on.
    purge_step = start_images + 1 if start_images else None
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge_step)
