"""Whole runs on ranks that are in a process group already."""

import io
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch

from fastgan.dist import world_from_environment
from fastgan.errors import FastganError
from fastgan.schedule import Plan
from fastgan.simulate import Gain
from fastgan.train import loop, role_times
from fastgan.train.config import load_config
from fastgan.train.log import quiet
from fastgan.train.run_folder import resume_config
from fastgan.train.split_step import SplitStep
from fastgan.train.step_statistics import Statistics
from tests.train.conftest import TINY


class Ended(NamedTuple):
    """The exit code, what was said on stdout, and the error."""

    code: int
    said: str
    error: str = ""


def run(run_dir: Path, overrides: Sequence[str], gain: float | None = 2.0, stop_at: int | None = None) -> Ended:
    """Trains in the folder, which is resumed if there is one.

    Args:
        gain: what is predicted; None for what is measured.
        stop_at: all processes but the first get SIGTERM before they make this step.
    """
    world, said = world_from_environment(), io.StringIO()
    with _predicting(gain), _stopping(stop_at), redirect_stdout(said), quiet(not world.is_main):
        try:
            if run_dir.exists():
                config, resume = resume_config(run_dir, asked=None, overrides=list(overrides)), run_dir
                code = loop._train(config, resume=resume, world=world)
            else:
                settings = [*TINY, f"data.path={run_dir.parent / 'images'}", f"run_dir={run_dir}", *overrides]
                code = loop._train(load_config("digits", overrides=settings), resume=None, world=world)
        except FastganError as error:
            return Ended(error.exit_code, said.getvalue(), f"{type(error).__name__}: {error}")
    return Ended(code, said.getvalue())


def measured(batch_images: int) -> tuple[dict[str, tuple[float, float]], dict[str, float], float]:
    """What this rank thinks of costs: the parts of a step, bytes of gradients, and an all-reduce over all ranks."""
    config = load_config("digits", overrides=[*TINY, f"batch_images={batch_images}", "penalties.0.every=2"])
    world = world_from_environment()
    cost = role_times.measured_cost(config, num_classes=0, dtype=torch.float32, device=torch.device("cpu"), world=world)
    seconds = cost.fabric.all_reduce_seconds(range(world.num_ranks), 1e6)
    return {name: tuple(part) for name, part in cost.parts.items()}, dict(cost.gradient_bytes), seconds


@contextmanager
def _predicting(gain: float | None) -> Iterator[None]:
    if gain is None:
        yield
        return
    with mock.patch.object(role_times, "gain_of_split", return_value=Gain(gain, 1.0, gain)):
        yield


@contextmanager
def _stopping(stop_at: int | None) -> Iterator[None]:
    ordinary = SplitStep.run

    def make_step(step: SplitStep, plan: Plan) -> Statistics:
        if plan.step == stop_at and plan.rank > 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return ordinary(step, plan)

    with mock.patch.object(SplitStep, "run", make_step):
        yield
