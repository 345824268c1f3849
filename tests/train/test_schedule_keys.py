"""The keys of the schedule: what each policy reads, what is refused, and that the loop does what they say."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastgan.data import Loader
from fastgan.errors import ConfigError
from fastgan.schedule import Alternate, Balance, Joint, Policy, ScheduleState, Split
from fastgan.simulate import CostModel, Fabric, Part, parts_from_passes
from fastgan.train.build_schedule import POLICIES, build_schedule
from fastgan.train.checkpoint import load_newest_checkpoint
from fastgan.train.config import RunConfig, load_config, resume_differences
from fastgan.train.config_models import KEYS_OF_POLICIES
from fastgan.train.loop import train
from fastgan.train.pace import Pace
from fastgan.train.stats import read_stats


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        (["discriminator_updates=3"], Alternate(batch_images=32, discriminator_updates=3)),
        (["policy=joint"], Joint(batch_images=32)),
        (["policy=balance", "max_updates=5"], Balance(batch_images=32, max_updates=5)),
        (["generator_start_images=64"], Alternate(batch_images=32, generator_start_images=64)),
    ],
)
def test_a_configuration_becomes_its_policy(settings: list[str], policy: Policy) -> None:
    config = load_config("digits", overrides=["penalties=[]", *(f"schedule.{setting}" for setting in settings)])
    assert build_schedule(config) == policy


def test_shares_are_checked_against_the_processes() -> None:
    config = load_config("digits", overrides=["micro_batch_images=8", "schedule.shares=[1,3]"])
    assert build_schedule(config, num_ranks=2).shares == (1, 3)
    with pytest.raises(ConfigError, match=r"schedule.shares=\[1, 3\] must have one number for each of num_ranks=3"):
        build_schedule(config, num_ranks=3)


def test_split_is_built_for_its_processes() -> None:
    settings = ["policy=split", "delay_steps=2", "publish_every=3", "max_staleness=6", "lockstep=false", "force=true"]
    config = load_config("digits", overrides=["penalties=[]", *(f"schedule.{setting}" for setting in settings)])
    timing = {"delay_steps": 2, "publish_every": 3, "max_staleness": 6, "lockstep": False}
    # Equal networks: the discriminator has more to do.
    assert build_schedule(config, num_ranks=4) == Split(batch_images=32, num_ranks=4, discriminator_ranks=2, **timing)
    slow = parts_from_passes(Part(0.0, 0.1), Part(0.0, 0.01))
    sizes = {"discriminator": 1e6, "generator": 1e6}
    fabric = Fabric(gpus_per_node=4, intra_bytes_per_second=1e9, inter_bytes_per_second=1e9)
    cost = CostModel(parts=slow, gradient_bytes=sizes, fabric=fabric)
    assert build_schedule(config, num_ranks=4, cost=cost) == Split(
        batch_images=32, num_ranks=4, discriminator_ranks=1, **timing
    )
    with pytest.raises(ConfigError, match="start 2 processes or more with torchrun, or use"):
        build_schedule(config, num_ranks=1)
    # A batch of 32 images serves roles of 32 ranks at most.
    assert build_schedule(config, num_ranks=64).groups == (range(32), range(32, 64))
    assert max(map(len, build_schedule(config, num_ranks=40).groups)) <= 32
    with pytest.raises(ConfigError, match="batch_images=32 must hold at least one of the images for each of 33 ranks"):
        build_schedule(config, num_ranks=65)


def test_one_process_cannot_split(tiny: Callable[..., RunConfig], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs at least one rank for each of its 2 roles, and num_ranks=1"):
        train(tiny("schedule.policy=split", "schedule.force=true", f"run_dir={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


def test_a_run_may_change_between_alternate_and_split_alone() -> None:
    def config(*overrides: str) -> RunConfig:
        return load_config("digits", overrides=[f"schedule.{override}" for override in overrides])

    alternate, split = config("share_fakes=false"), config("policy=split", "delay_steps=3", "discriminator_ranks=2")
    assert resume_differences(alternate, split) == resume_differences(split, alternate) == []
    assert resume_differences(split, config("policy=split", "lockstep=false", "publish_every=2")) == []
    for other in (config("policy=joint"), config("policy=alternate", "discriminator_updates=2")):
        assert [found.key for found in resume_differences(split, other)]


def test_every_policy_has_its_keys() -> None:
    assert KEYS_OF_POLICIES.keys() == POLICIES.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["schedule.policy=alternat"], "did you mean 'alternate'"),
        (["schedule.patience=4"], "schedule.patience=4 is not read by schedule.policy=alternate; leave it out, or use"),
        (["schedule.policy=joint", "schedule.generator_updates=2"], "schedule.generator_updates=2 is not read by"),
        (["schedule.policy=joint", "schedule.share_fakes=false"], "or use the policy alternate or balance"),
        (
            ["schedule.policy=joint", "penalties=[{kind: r2, weight: 1.0, mode: dual}]"],
            "penalties.0.mode=dual leaves schedule.policy=joint no graph of the fakes for the generator",
        ),
        (
            ["schedule.shares=fair"],
            "schedule.shares=fair is not valid: give equal, measured, or a list of whole numbers",
        ),
        (
            ["schedule.shares=[1,0]"],
            "is not valid: give equal, measured, or a list of whole numbers from 1 to 1,048,576",
        ),
        (["schedule.shares=[9999999,1]"], "schedule.shares=[9999999, 1] is not valid: give equal, measured, or a list"),
        (["schedule.discriminator_ranks=9999999"], "is not valid: give auto, or a whole number from 1 to 1,048,576"),
        (["schedule.policy=split", "parallel.overlap=true"], "parallel.overlap=true has no other network's work to"),
        (["schedule.policy=split", "schedule.shares=measured"], "schedule.shares=measured would make the roles of"),
        (
            ["schedule.policy=split", "micro_batch_images=8", "schedule.shares=[4,4]"],
            "schedule.discriminator_ranks=auto does not fit a list in schedule.shares, whose parts belong to roles of",
        ),
        (
            ["schedule.policy=split", "schedule.generator_start_images=64"],
            "schedule.generator_start_images=64 leaves the processes of one role of schedule.policy=split idle",
        ),
        (
            ["schedule.policy=split", "ensemble.members=[{name: other}]"],
            "schedule.policy=split publishes one discriminator; use alternate, or ensemble.members=[]",
        ),
        (["schedule.policy=split", "schedule.share_fakes=false"], "schedule.share_fakes=false is not read by"),
        (["schedule.lockstep=false"], "schedule.lockstep=false is not read by schedule.policy=alternate; leave it out"),
        (
            ["schedule.discriminator_ranks=0"],
            "schedule.discriminator_ranks=0 is not valid: give auto, or a",
        ),
        (["schedule.discriminator_ranks=true"], "is not valid: give auto, or a whole number from 1 to 1,048,576"),
        (["schedule.discriminator_updates=0"], "schedule.discriminator_updates=0"),
        (["schedule.high_percent=101"], "schedule.high_percent=101"),
    ],
)
def test_what_cannot_be_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config("digits", overrides=settings)
    assert message in str(raised.value)


def test_a_balanced_run_logs_its_updates_and_resumes_where_it_was(
    tiny: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """A band above what the statistic can be: one update more after every step."""
    balance = ["policy=balance", "low_percent=99", "high_percent=100", "patience=1", "max_updates=3"]
    settings = [f"schedule.{setting}" for setting in balance] + ["log.every_images=8", "checkpoint.every_images=8"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(tiny(*settings, f"run_dir={whole}", "total_images=120")) == 0
    # Steps of 1, 1, 2, 3, 3 updates and so on.
    ticks = read_stats(whole)
    assert [tick["images_seen"] for tick in ticks] == [8, 16, 32, 56, 80, 104, 128]
    assert [tick["discriminator_updates"] for tick in ticks] == [1, 2, 4, 7, 10, 13, 16]
    assert train(tiny(*settings, f"run_dir={parts}", "total_images=32")) == 0
    assert train(tiny(*settings, f"run_dir={parts}", "total_images=120"), resume=parts) == 0
    ends = [load_newest_checkpoint(run_dir, on_damage=pytest.fail) for run_dir in (whole, parts)]
    assert ends[0].schedule == ends[1].schedule
    assert all(torch.equal(a, b) for a, b in zip(*(weights(end.path) for end in ends), strict=True))


def weights(checkpoint: Path) -> list[torch.Tensor]:
    return [*load_file(checkpoint / "generator.safetensors").values()]


def test_a_network_that_starts_later_is_not_trained_before(tiny: Callable[..., RunConfig], tmp_path: Path) -> None:
    settings = ["schedule.generator_start_images=24", "log.every_images=8", f"run_dir={tmp_path / 'run'}"]
    assert train(tiny(*settings, "total_images=40")) == 0
    ticks = read_stats(tmp_path / "run")
    assert ["loss_generator" in tick for tick in ticks] == [False, False, False, True, True]
    assert all("loss_discriminator" in tick for tick in ticks)


@pytest.mark.parametrize(("loss", "num_loaded"), [("hinge", 0), ("relativistic", 2)])
def test_real_images_are_loaded_for_updates_that_read_them(
    loss: str, num_loaded: int, tiny: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps in which the generator trains alone, as it does on its ranks of `split`."""
    loaded, ordinary = [], Loader.batch
    monkeypatch.setattr(Loader, "batch", lambda *a: loaded.append(a) or ordinary(*a))
    monkeypatch.setattr(Loader, "prefetch", lambda *a: loaded.append(a) if loss == "hinge" else None)
    settings = [f"objective.loss={loss}", "schedule.discriminator_start_images=16", "total_images=16"]
    assert train(tiny(*settings, f"run_dir={tmp_path / 'run'}")) == 0
    assert len(loaded) == num_loaded


def test_pace_is_the_time_of_forward_passes() -> None:
    class Slow(torch.nn.Module):
        def forward(self, seconds: float) -> float:
            time.sleep(seconds)
            return seconds

    module = Slow()
    pace = Pace(module, device=torch.device("cpu"))
    plan = Alternate(batch_images=6, micro_batch_images=2).plan(ScheduleState())
    for _ in range(4):
        module(0.01)
    time.sleep(0.05)
    assert 30_000 <= pace.microseconds(plan) < 60_000
    assert pace.microseconds(plan) == 0
