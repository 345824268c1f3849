"""Training steps of the digits preset under each parallel engine: `python -m benchmarks.bench_parallel`.

`single` is one process with all cores or one GPU; each of the others is measured with one process, which shows what it
costs by itself, and with a process per GPU, or two that share the cores. All of them train on the same batch, and their
first losses must agree before they are timed. `bare_ddp` is torch's DDP in a loop without fastgan's plans, engines and
votes: what those cost is the difference to `ddp`. DeepSpeed's stage 3 takes its penalties in the mode `dual`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from benchmarks.harness import Case, Provider
from benchmarks.op_counts import Counts
from benchmarks.parallel_worker import COMPARED, COUNT, KEPT, MARK, PERIOD, make_step
from benchmarks.runner import Options, main_of
from benchmarks.step_providers import steps_per_period
from benchmarks.text import last_error
from benchmarks.train_step import load_preset
from fastgan.dist import ALONE

ROOT = Path(__file__).resolve().parents[1]
SINGLE = "single"
# Not an engine: torch's DDP in a loop without fastgan's machinery.
BARE_DDP = "bare_ddp"
STAGES = range(4)


class Way(NamedTuple):
    """An engine, DeepSpeed's with its stage, and on how many processes it runs."""

    engine: str
    num_processes: int
    stage: int | None = None

    @property
    def name(self) -> str:
        """As rows call it."""
        engine = self.engine if self.stage is None else f"{self.engine} stage {self.stage}"
        return f"{engine}, {self.num_processes} process{'es' if self.num_processes > 1 else ''}"

    @property
    def arguments(self) -> list[str]:
        """Of `parallel_worker`."""
        if self.engine == BARE_DDP:
            return ["--bare-ddp"]
        keys = [f"parallel.engine={self.engine}", *([] if self.stage is None else [f"parallel.stage={self.stage}"])]
        return [*keys, *(["--penalty-mode", "dual"] if self.stage == 3 else [])]


def ways(num_processes: int, *, is_quick: bool) -> list[Way]:
    """What is measured, `single` first."""
    several = [Way(BARE_DDP, num_processes), Way("ddp", num_processes)]
    if is_quick:
        return [Way(SINGLE, 1), *several]
    sharded = [*(Way("deepspeed", num_processes, stage) for stage in STAGES), Way("fsdp2", num_processes)]
    several += [Way("flat", num_processes), *sharded]
    alone = [way._replace(num_processes=1) for way in several] if num_processes > 1 else []
    return [Way(SINGLE, 1), *alone, *several]


# Engines add gradients up in different orders, and the generator's first loss follows a discriminator's update.
_TOLERANCE = 1e-3
_END_SECONDS = 10.0


def cases(options: Options) -> Iterator[Case]:
    """One case with all engines, whose processes live as long as it is measured."""
    config = load_preset("digits", is_quick=options.is_quick)
    gpus = torch.cuda.device_count() if options.device.type == "cuda" else 0
    num_processes = gpus or 2
    yield Case(
        benchmark="parallel",
        name=f"{config.name}, batch {config.batch_images}, {num_processes} processes",
        device=options.device,
        dtype="fp32",
        make_inputs=lambda seed: (),
        exact=lambda: _losses(make_step(config, ALONE, options.device)()),
        providers=tuple(_provider(way, options) for way in ways(num_processes, is_quick=options.is_quick)),
        num_items=steps_per_period(config) * config.batch_images,
        item="images",
        counts_ops=True,
        runs_elsewhere=True,
        tolerance=lambda dtype: _TOLERANCE,
    )


def _provider(way: Way, options: Options) -> Provider:
    return Provider(
        way.name,
        build=lambda: Engine(way, options),
        check=lambda run, inputs: run.first_losses,
        count=lambda run: run.count(),
        kept=lambda run: run.kept_bytes(),
        close=lambda run: run.close(),
    )


def _losses(facts: dict[str, float]) -> Sequence[Tensor]:
    return [torch.tensor(facts[name], dtype=torch.float64) for name in COMPARED]


class Engine:
    """The processes of an engine; a call makes one period of steps and returns when all of it is done.

    Raises:
        RuntimeError: if they do not come up, with the last line that they wrote.
    """

    def __init__(self, way: Way, options: Options) -> None:
        command = [sys.executable, "-m", "benchmarks.parallel_worker", *way.arguments]
        command += ["--device", options.device.type, *(["--quick"] if options.is_quick else [])]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._processes = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                stderr=self._errors,
                text=True,
            )
            for rank, environment in enumerate(environments(way.num_processes, is_launched=way.engine != SINGLE))
        ]
        try:
            self.first_losses = _losses(self._answer())
        except RuntimeError:
            self.close()
            raise

    def __call__(self) -> Sequence[Tensor]:
        self._ask(PERIOD)
        return ()

    def count(self) -> Counts:
        """What one step asks of torch on rank 0."""
        return Counts(**self._ask(COUNT))

    def kept_bytes(self) -> int:
        """Memory of the tensors of rank 0 between two steps."""
        return self._ask(KEPT)["num_bytes"]

    def _ask(self, command: str) -> dict[str, int]:
        stream = self._processes[0].stdin
        assert stream is not None
        stream.write(f"{command}\n")
        stream.flush()
        return {name: int(value) for name, value in self._answer().items()}

    def _answer(self) -> dict[str, float]:
        stream = self._processes[0].stdout
        assert stream is not None
        for line in stream:
            if line.startswith(MARK):
                answer: dict[str, float] = json.loads(line.removeprefix(MARK))
                return answer
        raise RuntimeError(self._last_error())

    def _last_error(self) -> str:
        self._errors.seek(0)
        return last_error(self._errors.read().decode(errors="replace"))

    def close(self) -> None:
        """Asks the processes to end, and ends them if they do not."""
        stream = self._processes[0].stdin
        assert stream is not None
        with contextlib.suppress(OSError):
            stream.close()
        for process in self._processes:
            try:
                process.wait(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._processes[0].stdout is not None:
            self._processes[0].stdout.close()
        self._errors.close()


def environments(num_processes: int, *, is_launched: bool) -> list[dict[str, str]]:
    """What a launcher sets; the cores are shared out, so that no engine has more of them than another.

    Args:
        is_launched: whether a process on CPU is told of a world, even if it is alone in it.
    """
    if not is_launched and not torch.cuda.is_available():
        return [dict(os.environ)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = str(max(1, torch.get_num_threads() // num_processes))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_processes)}
    return [
        {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": threads}
        for rank in range(num_processes)
    ]


if __name__ == "__main__":
    sys.exit(main_of("parallel", cases, description=__doc__))
