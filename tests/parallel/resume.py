"""Checkpoints that go from one engine and number of ranks to another, and saves that fail."""

import errno
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from benchmarks.op_counts import count_ops
from fastgan.errors import FastganError
from fastgan.train import checkpoint as module
from fastgan.train.checkpoint import RunFacts, load_newest_checkpoint, save_checkpoint
from fastgan.train.state import TrainState
from tests.parallel import toy
from tests.parallel.toy import Case

FACTS = RunFacts(precision="fp32", dataset_digest="abc", num_classes=0)


def save(state: TrainState, case: Case, run_dir: Path) -> None:
    save_checkpoint(run_dir, state, facts=FACTS, keep=2, world=toy.world_of(case))


def save_after_training(case: Case, run_dir: Path) -> dict[str, Any]:
    """Trains and saves; the whole weights, and the number of collectives that saving took."""
    state = toy.build(case)
    toy.train_steps(state, case)
    num_collectives = count_ops(lambda: save(state, case, run_dir)).num_collectives
    return {"weights": toy.whole_weights(state), "collectives": num_collectives}


def go_on(case: Case, run_dir: Path) -> Any:
    """Weights after training on from the newest checkpoint."""
    checkpoint = load_newest_checkpoint(run_dir, on_damage=print)
    state = toy.build(case, checkpoint)
    toy.train_steps(state, case)
    return toy.whole_weights(state)


def save_twice(case: Case, run_dir: Path, fail: Callable[[TrainState], Any]) -> str:
    """A good save, then one more step and a save during which `fail` is entered; how that ended."""
    state = toy.build(case)
    for prepare in (nothing, fail):
        toy.train_steps(state, case)
        try:
            with prepare(state):
                save(state, case, run_dir)
        except (FastganError, RuntimeError) as error:
            return f"{type(error).__name__}: {error}"
    return "saved"


def _only_on(rank: int, write: Callable[[Path, bytes], None]) -> Any:
    """Replaces the writing of files on one rank."""
    return mock.patch.object(module, "write_flushed", write) if dist.get_rank() == rank else nullcontext()


def nothing(state: TrainState) -> Any:
    """All goes well."""
    return nullcontext()


def full_disk_on_rank_1(state: TrainState) -> Any:
    def write(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    return _only_on(1, write)


def death_of_rank_1(state: TrainState) -> Any:
    """The process is gone in the middle of a file."""

    def write(path: Path, content: bytes) -> None:
        path.write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    return _only_on(1, write)


def death_of_rank_0_at_the_end(state: TrainState) -> Any:
    """All files are written but the manifest."""
    ordinary = module.write_flushed

    def write(path: Path, content: bytes) -> None:
        if path.name == module.MANIFEST:
            os.kill(os.getpid(), signal.SIGKILL)
        ordinary(path, content)

    return _only_on(0, write)


def nan_on_rank_1(state: TrainState) -> Any:
    """Only in the shard of one rank."""
    if dist.get_rank() == 1:
        with torch.no_grad():
            for parameter in state.generator.parameters():
                getattr(parameter, "to_local", lambda value=parameter: value)().fill_(torch.nan)
    return nullcontext()


def other_folder_on_rank_1(state: TrainState) -> Any:
    """As when the machines do not share the file system."""
    folder = module.checkpoints_folder
    elsewhere = mock.patch.object(module, "checkpoints_folder", lambda run_dir: folder(run_dir / "elsewhere"))
    return elsewhere if dist.get_rank() == 1 else nullcontext()
