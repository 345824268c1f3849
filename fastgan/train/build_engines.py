"""From a configuration to the engines of all networks."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.distributed as torch_dist
from torch import nn

from fastgan.dist import World
from fastgan.errors import ConfigError
from fastgan.parallel import Demands, Engine, EngineChoice, check_stages, choose_engine, make_engine
from fastgan.parallel.zero_config import deepspeed_settings, read_deepspeed_json
from fastgan.train.config import AdamConfig, EngineConfig, PenaltyConfig, RunConfig
from fastgan.train.log import warn
from fastgan.train.roles import Roles


class Side(NamedTuple):
    """What a configuration says of one network's engine.

    key: where its engine stands in the configuration.
    """

    key: str
    engine: EngineConfig
    adam: AdamConfig
    differentiates_twice: bool


def sides(config: RunConfig) -> dict[str, Side]:
    """All networks that are trained: the generator, the discriminator, and the others as `discriminator-NAME`."""
    optimizer, parallel = config.optimizer, config.parallel
    found = {
        "discriminator": Side(
            "parallel.discriminator",
            parallel.discriminator,
            optimizer.discriminator,
            differentiates_twice=_differentiates_twice(config.penalties),
        ),
        "generator": Side(
            "parallel.generator",
            parallel.generator,
            optimizer.generator,
            differentiates_twice=False,
        ),
    }
    for index, member in enumerate(config.ensemble.members):
        found[f"discriminator-{member.name}"] = Side(
            f"ensemble.members.{index}.parallel",
            member.parallel,
            member.optimizer,
            differentiates_twice=_differentiates_twice(member.penalties),
        )
    return found


def _differentiates_twice(penalties: tuple[PenaltyConfig, ...]) -> bool:
    return any(penalty.mode == "double" for penalty in penalties)


def build_optimizer(network: nn.Module, config: AdamConfig) -> torch.optim.Adam:
    """Adam in its fused form: one pass over all parameters per step."""
    betas = (config.betas[0], config.betas[1])
    return torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=betas, eps=config.eps, fused=True)


def choose_engines(config: RunConfig, *, world: World, roles: Roles | None = None) -> dict[str, EngineChoice]:
    """The engine of each network, by its name in `sides`.

    Args:
        roles: of `split`, where a network is trained by some of the ranks only.
    Raises:
        ConfigError: if one cannot do what the configuration asks, before any network is built.
    """
    parallel = config.parallel
    choices = {}
    for name, side in sides(config).items():
        demands = Demands(
            network=name,
            differentiates_twice=side.differentiates_twice,
            compresses=parallel.compression != "none",
            overlaps=parallel.overlap,
        )
        stage = parallel.stage if side.engine.stage is None else side.engine.stage
        trained_by = world if roles is None else roles.world_of("generator" if name == "generator" else "discriminator")
        choices[name] = choose_engine(side.engine.engine or parallel.engine, stage, world=trained_by, demands=demands)
        if roles is not None:
            _check_whole(name, choices[name].kind)
        if config.schedule.shares != "equal":
            _check_shares(config, name, choices[name].kind)
    own = {side.key: (choices[name], side.engine.stage) for name, side in sides(config).items()}
    check_stages(parallel.stage, own)
    _check_deepspeed_json(parallel.deepspeed_config, choices)
    return choices


def _check_deepspeed_json(path: str | None, choices: Mapping[str, EngineChoice]) -> None:
    """Refuses a file that nobody reads, and one that one of its readers would refuse.

    Raises:
        ConfigError: naming the key.
    """
    stages = {choice.stage for choice in choices.values() if choice.kind == "deepspeed"}
    if path is not None and not stages:
        raise ConfigError(
            f"parallel.deepspeed_config={path} is only read by deepspeed; leave it out, or use "
            "parallel.engine=deepspeed"
        )
    for stage in stages:
        deepspeed_settings(stage, read_deepspeed_json(path), on_warning=lambda text: None)


def _check_whole(network: str, engine: str) -> None:
    """Refuses an engine whose ranks have no whole weights that one of them could publish.

    Raises:
        ConfigError: naming the engine and the alternative.
    """
    if engine not in ("single", "flat", "ddp"):
        reason = "is not made for some of the processes, whose weights one of them must publish whole"
        raise ConfigError(
            f"parallel.engine={engine} of the {network} with schedule.policy=split: this engine {reason}; use ddp or "
            "flat, or schedule.policy=alternate"
        )


def _check_shares(config: RunConfig, network: str, engine: str) -> None:
    """Refuses an engine whose ranks meet in every micro-batch, of which they may have different numbers.

    Raises:
        ConfigError: naming the engine and the alternative.
    """
    shares = config.schedule.shares
    text = shares if isinstance(shares, str) else list(shares)
    asked = f"schedule.shares={text} with parallel.engine={engine} of the {network}"
    if engine not in ("single", "flat", "ddp"):
        reason = "gathers weights in every micro-batch, of which all processes must have equally many"
        remedy = "give parallel.engine=ddp or flat, or schedule.shares=equal"
        raise ConfigError(f"{asked}: this engine {reason}; {remedy}")
    # A step runs passes of several networks for each micro-batch, unless the generator is alone with its own.
    other = ""
    if config.schedule.policy == "joint":
        other = "schedule.policy=joint"
    elif config.ensemble.members and network != "generator":
        other = "several discriminators"
    if engine == "ddp" and other:
        reason = "arranges its buckets anew in a forward pass, where one network's processes wait for the other's"
        raise ConfigError(f"{asked} and {other}: this engine {reason}; give parallel.engine=flat")


def build_engine(
    config: RunConfig,
    network: str,
    objective: nn.Module,
    *,
    choice: EngineChoice,
    device: torch.device,
    group: torch_dist.ProcessGroup | None = None,
) -> Engine:
    """The engine of `network`, a name in `sides`, around its objective.

    Args:
        group: the ranks that train it; None for all.
    Raises:
        ConfigError: if a package is missing, or DeepSpeed's JSON has a key that would change the training.
    """
    adam, parallel = sides(config)[network].adam, config.parallel
    settings = None
    if choice.kind == "deepspeed":
        user = read_deepspeed_json(parallel.deepspeed_config)
        settings = deepspeed_settings(choice.stage, user, on_warning=warn)
    return make_engine(
        choice,
        objective,
        make_optimizer=lambda module: build_optimizer(module, adam),
        device=device,
        timeout_seconds=parallel.timeout_seconds,
        communication_dtype=torch.bfloat16 if parallel.compression == "bf16" else None,
        overlap=parallel.overlap,
        group=group,
        deepspeed=settings,
    )
