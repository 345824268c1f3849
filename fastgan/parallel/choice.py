"""Which engine runs a network: what was asked for, or a refusal with the reason and the alternative."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastgan.dist import World
from fastgan.errors import ConfigError

DEFAULT_STAGE = 2


@dataclass(frozen=True)
class EngineChoice:
    """An engine, and for DeepSpeed its stage (0 for the others)."""

    kind: str
    stage: int = 0


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What a network needs of its engine.

    network: as messages call it, for example "generator".
    differentiates_twice: its backward pass goes through a gradient, as that of penalties with the mode double does.
    compresses: gradients are to be sent in fewer bits.
    overlaps: gradients are to be sent while the other network computes.
    """

    network: str
    differentiates_twice: bool
    compresses: bool
    overlaps: bool


def choose_engine(kind: str, stage: int | None, *, world: World, demands: Demands) -> EngineChoice:
    """The engine for `kind` (a name or "auto") and `stage` (None for the default) in this world.

    Raises:
        ConfigError: if the engine cannot do this.
    """
    if kind == "auto":
        kind = "ddp" if world.num_ranks > 1 else "single"
    asked = f"parallel.engine={kind} of the {demands.network}"
    if kind == "single" and world.num_ranks > 1:
        reason = f"would train {world.num_ranks} unrelated networks, one per process"
        raise ConfigError(f"{asked} {reason}; use ddp, or start one process")
    if kind != "single" and not world.is_launched:
        launcher = "torchrun --nproc-per-node=N -m fastgan train ..."
        raise ConfigError(f"{asked} needs processes that a launcher starts: {launcher}; or use parallel.engine=single")
    if demands.compresses and kind not in {"flat", "ddp"}:
        remedy = "use ddp or flat; for deepspeed, communication_data_type in parallel.deepspeed_config"
        raise ConfigError(f"parallel.compression=bf16 is not done by {asked}; {remedy}")
    if demands.overlaps and kind not in {"flat", "ddp"}:
        reason = "has nothing to send" if kind == "single" else "waits for its gradients within the backward pass"
        raise ConfigError(f"parallel.overlap=true: {asked} {reason}; use ddp or flat, or parallel.overlap=false")
    if kind != "deepspeed":
        return EngineChoice(kind)
    chosen = EngineChoice(kind, DEFAULT_STAGE if stage is None else stage)
    if chosen.stage == 3 and demands.differentiates_twice:
        reason = "cannot differentiate a gradient: its hooks free weights that the second backward pass reads"
        remedy = "use mode=dual or approximate for each penalty, or stage 2, or fsdp2"
        raise ConfigError(f"{asked} with parallel.stage=3 {reason}; {remedy}")
    return chosen


def check_stages(stage: int | None, engines: Mapping[str, tuple[EngineChoice, int | None]]) -> None:
    """Refuses a stage that nobody reads.

    Args:
        stage: parallel.stage.
        engines: the engine and the own stage of each network, by the key of the section that names them.
    Raises:
        ConfigError: for a stage of an engine other than deepspeed.
    """
    for key, (choice, own) in engines.items():
        if own is not None and choice.kind != "deepspeed":
            raise ConfigError(
                f"{key}.stage={own} is only read by deepspeed and this network's engine is {choice.kind}; "
                f"leave it out, or set {key}.engine=deepspeed"
            )
    if stage is not None and all(choice.kind != "deepspeed" for choice, _ in engines.values()):
        raise ConfigError(
            f"parallel.stage={stage} is only read by deepspeed; leave it out, or use parallel.engine=deepspeed"
        )
