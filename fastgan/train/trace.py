"""The Chrome trace of a few steps, which `profile=true` asks for: one file per process in the run folder.

It opens in ui.perfetto.dev or chrome://tracing. Beside torch's operators, kernels and collectives it has the steps and
the parts of each update by name.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from fastgan.dist import World
from fastgan.errors import RunFolderError
from fastgan.train.config import RunConfig
from fastgan.train.log import say, warn

# The first steps fill caches, allocate memory and choose kernels: they are like no others.
NUM_STEPS_BEFORE = 5
_MAX_STEPS = 16


def num_steps_to_trace(config: RunConfig) -> int:
    """So many that each lazy penalty is among them, at most 16."""
    updates = max((penalty.every for penalty in config.penalties), default=1)
    return min(_MAX_STEPS, max(2, -(-updates // config.schedule.discriminator_updates)))


class NoTrace:
    """Stands for a trace where none is asked for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to write."""

    def step(self, number: int) -> AbstractContextManager[None]:
        """Nothing."""
        del number
        return nullcontext()

    def span(self, name: str) -> AbstractContextManager[None]:
        """Nothing."""
        del name
        return nullcontext()


class Trace:
    """Records `num_steps` steps after the first NUM_STEPS_BEFORE of this process, to `run_dir/trace-RANK.json`.

    Raises:
        RunFolderError: while it is entered, if the file cannot be written.
    """

    def __init__(self, run_dir: Path, *, num_steps: int, device: torch.device, world: World) -> None:
        self.path = run_dir / f"trace-{world.rank}.json"
        self._num_steps = num_steps
        self._num_steps_seen = 0
        self._recorded: list[int] = []
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        # torch's profiler reports its own starts and stops on stderr.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        # Else torch 2.11 warns that a second recording would replace the first; there is only one.
        self._profile = profile(activities=activities, record_shapes=True, acc_events=True)
        self._is_recording = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_recording:
            self._write()
        elif not self._recorded and kind is None:
            rule = f"the first {NUM_STEPS_BEFORE} steps are not recorded"
            warn(f"profile=true: the run ended after {self._num_steps_seen} steps and {rule}; train longer for a trace")

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """While entered, step `number` of the run is made."""
        if self._num_steps_seen == NUM_STEPS_BEFORE:
            self._profile.start()
            self._is_recording = True
        with self.span(f"step {number}"):
            yield
        self._num_steps_seen += 1
        if self._is_recording:
            self._recorded.append(number)
            if len(self._recorded) == self._num_steps:
                self._write()

    def span(self, name: str) -> AbstractContextManager[object]:
        """While entered, what runs is shown under `name`."""
        return record_function(name) if self._is_recording else nullcontext()

    def _write(self) -> None:
        self._is_recording = False
        self._profile.stop()
        if not self._recorded:
            return
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        try:
            self._profile.export_chrome_trace(str(temporary))
            temporary.replace(self.path)
        except OSError as error:
            raise RunFolderError(f"cannot write {self.path}: {error.strerror}; free space, or profile=false") from error
        say(f"steps {self._recorded[0]} to {self._recorded[-1]} recorded: {self.path}, to be opened in ui.perfetto.dev")
