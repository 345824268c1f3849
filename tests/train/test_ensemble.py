"""A generator against several discriminators: configuration, training, checkpoints."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastgan.data import Loader, open_dataset
from fastgan.errors import CheckpointError, ConfigError
from fastgan.train.build import build_state
from fastgan.train.build_schedule import build_schedule
from fastgan.train.checkpoint import list_checkpoints
from fastgan.train.config import RunConfig, dump_config, load_config
from fastgan.train.loop import train
from fastgan.train.run_folder import resume_config
from fastgan.train.state import TrainState
from fastgan.train.stats import read_stats
from fastgan.train.step import TrainStep

MEMBERS = (
    "ensemble.members=[{name: narrow, network: {channels: 2, max_channels: 4}, loss: hinge},"
    " {name: plain, network: {channels: 2, spectral_norm: false}, penalties: [{kind: r2, weight: 3, every: 2}],"
    " optimizer: {learning_rate: 1e-3}}]"
)


@pytest.fixture
def loader(workplace: Path) -> Iterator[Loader]:
    dataset = open_dataset("images", resolution=32, channels=1, on_warning=pytest.fail)
    with Loader(dataset, seed=0, mirror=False) as loader:
        yield loader


def make_steps(config: RunConfig, state: TrainState, loader: Loader, *, num_steps: int) -> list[dict[str, float]]:
    schedule = build_schedule(config)
    num_drawn = config.ensemble.num_drawn
    step = TrainStep(state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu", num_drawn=num_drawn)
    records = []
    for _ in range(num_steps):
        records.append(step.run(schedule.plan(state.schedule)).read())
        state.schedule = schedule.advance(state.schedule)
    return records


def state_of(config: RunConfig) -> TrainState:
    return build_state(config, num_classes=0, dtype=torch.float32, device="cpu")


def values(network: torch.nn.Module) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


def test_each_discriminator_is_trained_as_if_it_were_alone(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    config = tiny(MEMBERS, "penalties=[{kind: r1, weight: 2}]")
    state = state_of(config)
    fresh = copy.deepcopy({name: network for name, (network, _) in state.discriminators.items()})
    make_steps(config, state, loader, num_steps=1)
    alone = {
        "discriminator": ("penalties=[{kind: r1, weight: 2}]",),
        "discriminator-narrow": ("discriminator.max_channels=4", "objective.loss=hinge", "penalties=[]"),
        "discriminator-plain": (
            "discriminator={channels: 2, max_channels: 512, spectral_norm: false}",
            "objective.loss=non_saturating",
            "penalties=[{kind: r2, weight: 3, every: 2}]",
            "optimizer.discriminator.learning_rate=1e-3",
        ),
    }
    for name, overrides in alone.items():
        # A member's Adam has the defaults of the section.
        adam = () if name == "discriminator" else ("optimizer.discriminator={learning_rate: 2e-4, betas: [0, 0.99]}",)
        single = tiny(*adam, *overrides)
        other = state_of(single)
        other.discriminator.load_state_dict(fresh[name].state_dict())
        make_steps(single, other, loader, num_steps=1)
        torch.testing.assert_close(
            values(state.discriminators[name][0]), values(other.discriminator), rtol=0, atol=0, msg=name
        )


def test_statistics_name_the_discriminator_and_penalties_come_when_they_are_due(
    tiny: Callable[..., RunConfig], loader: Loader
) -> None:
    config = tiny(MEMBERS, "penalties=[]")
    first, second = make_steps(config, state_of(config), loader, num_steps=2)
    common = {"loss_discriminator", "logits_real", "logits_fake", "sign_statistic"}
    expected = common | {f"{name}/{member}" for name in common for member in ("narrow", "plain")}
    expected |= {"loss_generator"} | {f"loss_generator/{member}" for member in ("main", "narrow", "plain")}
    assert second.keys() == expected
    assert first.keys() == expected | {"penalty_r2/plain"}


def test_the_drawn_ones_follow_from_seed_and_update(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    config = tiny(MEMBERS, "ensemble.combination=random", "ensemble.num_drawn=2")
    runs = [make_steps(config, state_of(config), loader, num_steps=8) for _ in range(2)]
    drawn = [[sorted(key for key in record if key.startswith("loss_generator/")) for record in run] for run in runs]
    assert drawn[0] == drawn[1]
    assert all(len(names) == 2 for names in drawn[0])
    assert len({tuple(names) for names in drawn[0]}) == 3


def test_no_gradient_is_left_in_a_discriminator(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    config = tiny(MEMBERS, "ensemble.combination=max")
    state = state_of(config)
    make_steps(config, state, loader, num_steps=1)
    for network, _ in state.discriminators.values():
        assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_a_checkpoint_holds_all_and_fits_only_its_own_configuration(tiny: Callable[..., RunConfig]) -> None:
    assert train(tiny(MEMBERS, "run_dir=run", "total_images=16")) == 0
    (newest,) = list_checkpoints(Path("run"))
    for name in ("discriminator", "discriminator-narrow", "discriminator-plain"):
        assert (newest / f"{name}.safetensors").is_file()
        assert (newest / f"{name}_optimizer.safetensors").is_file()
    assert "loss_discriminator/narrow" in read_stats(Path("run"))[-1]
    with pytest.raises(CheckpointError, match=r"ensemble\.members\.0\.loss"):
        resume_config(Path("run"), asked=None, overrides=["ensemble.members.0.loss=wasserstein"])
    # How the work is split may change.
    changed = resume_config(Path("run"), asked=None, overrides=["ensemble.members.0.parallel.engine=single"])
    assert changed.ensemble.members[0].parallel.engine == "single"


def test_the_configuration_explains_itself_and_loads_back(tiny: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = tiny(MEMBERS, "ensemble.combination=max")
    path = tmp_path / "all.yaml"
    path.write_text(dump_config(config))
    assert load_config(None, config_file=path) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ensemble.combination=max", "needs several discriminators; list the others in ensemble.members"),
        (
            "schedule.policy=joint",
            r"schedule\.policy=joint takes the generator's gradients from one discriminator; use alternate",
        ),
        ("ensemble.num_drawn=2", "is only read by ensemble.combination=random"),
        ("ensemble.members=[{name: a}, {name: a}]", r"ensemble\.members\.1\.name='?a'? is taken"),
        ("ensemble.members=[{name: main}]", "main is the discriminator beside the list"),
        (
            "ensemble={combination: random, num_drawn: 3, members: [{name: a}]}",
            "must be at most the number of discriminators, 2",
        ),
        (
            "ensemble.members=[{name: a, network: {channels: 64, max_channels: 8}}]",
            r"must be at most ensemble\.members\.0\.network\.max_channels=8",
        ),
        (
            "ensemble.members=[{name: a, penalties: [{kind: r1, weight: 1}, {kind: r1, weight: 2}]}]",
            r"is also the kind of ensemble\.members\.0\.penalties\.0",
        ),
        ("ensemble.members=[{name: a, parallel: {stage: 1}}]", r"ensemble\.members\.0\.parallel\.stage=1 is only read"),
    ],
)
def test_what_cannot_be_is_refused(tiny: Callable[..., RunConfig], override: str, message: str) -> None:
    members = ("ensemble.members=[{name: a}]",) if "policy" in override else ()
    with pytest.raises(ConfigError, match=message):
        state_of(tiny(*members, override))
