"""`fastgan simulate`: how fast a run would be in a world that is not here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan.cli.arguments import ConfigFile, Overrides, Preset, load_arguments
from fastgan.cli.schedule import Plot, Ranks, check_world, save_timeline
from fastgan.errors import ConfigError
from fastgan.train.log import say

if TYPE_CHECKING:
    from fastgan.schedule import Policy
    from fastgan.simulate import CostModel, Fabric, Part, Simulated
    from fastgan.train.config import RunConfig

Time = Annotated[str | None, typer.Option(metavar="TIME+TIME", help="A forward pass, and each of its images.")]
Rate = Annotated[str, typer.Option(metavar="RATE", help="One rank's link, one way, e.g. 450GB/s or 400Gb/s.")]
Latency = Annotated[str, typer.Option(metavar="TIME", help="Of one message, e.g. 3us.")]


def simulate(
    preset: Preset = None,
    overrides: Overrides = None,
    config: ConfigFile = None,
    *,
    ranks: Ranks = 8,
    steps: Annotated[int, typer.Option(help="Steps to simulate.")] = 20,
    gpus_per_node: Annotated[int, typer.Option(help="Ranks that share a node.")] = 8,
    intra: Rate = "450GB/s",
    inter: Rate = "50GB/s",
    intra_latency: Latency = "3us",
    inter_latency: Latency = "10us",
    algorithm: Annotated[str, typer.Option(metavar="auto|ring|tree", help="Of all-reduces.")] = "auto",
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Record of: fastgan bench step")] = None,
    generator: Time = None,
    discriminator: Time = None,
    jitter: Annotated[float, typer.Option(help="Relative spread of every computation's time.")] = 0.0,
    stragglers: Annotated[float, typer.Option(help="Share of ranks that are always slow.")] = 0.0,
    slowdown: Annotated[float, typer.Option(help="How many times as long those take.")] = 1.5,
    seed: Annotated[int, typer.Option(help="Of jitter and stragglers.")] = 0,
    trace: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write a trace for Chrome's viewer.")] = None,
    plot: Plot = None,
) -> None:
    """Predict speed and waiting, for example: fastgan simulate digits --ranks 8 --record FILE"""
    from fastgan.simulate import Noise
    from fastgan.simulate import simulate as run
    from fastgan.train.build_schedule import build_cost, build_schedule

    check_world(ranks, steps, plot)
    run_config = load_arguments(preset, overrides, config_file=config)
    links = _fabric(gpus_per_node, (intra, inter), (intra_latency, inter_latency), algorithm=algorithm)
    _check_modelled(run_config, ranks)
    cost = build_cost(run_config, parts=_parts(run_config, record, passes=(generator, discriminator)), fabric=links)
    policy = build_schedule(run_config, num_ranks=ranks, cost=cost)
    noise = Noise(jitter=jitter, straggler_share=stragglers, straggler_slowdown=slowdown, seed=seed)
    found = run(policy, cost, num_steps=steps, overlapped=run_config.parallel.overlap, noise=noise)
    _say_report(policy, found, cost)
    _write(policy, found, trace=trace, plot=plot)


def _fabric(gpus_per_node: int, rates: tuple[str, str], latencies: tuple[str, str], *, algorithm: str) -> Fabric:
    from fastgan.simulate import Fabric
    from fastgan.simulate.quantities import bytes_per_second, seconds

    return Fabric(
        gpus_per_node=gpus_per_node,
        intra_bytes_per_second=bytes_per_second(rates[0], option="--intra"),
        inter_bytes_per_second=bytes_per_second(rates[1], option="--inter"),
        intra_latency_seconds=seconds(latencies[0], option="--intra-latency"),
        inter_latency_seconds=seconds(latencies[1], option="--inter-latency"),
        algorithm=algorithm,
    )


def _check_modelled(config: RunConfig, ranks: int) -> None:
    """Raises:
    ConfigError: if such a run could not start, or has costs that the simulator does not know.
    """
    from fastgan.dist import World
    from fastgan.train.build_engines import choose_engines

    if config.ensemble.members:
        names = [member.name for member in config.ensemble.members]
        reason = "cannot be simulated: costs are those of one discriminator"
        raise ConfigError(f"ensemble.members={names} {reason}; give ensemble.members=[]")
    for name, choice in choose_engines(config, world=World(0, ranks, 0, is_launched=ranks > 1)).items():
        if choice.kind not in ("single", "flat", "ddp"):
            raise ConfigError(
                f"parallel.engine={choice.kind} of the {name} cannot be simulated: costs are those of ranks that hold "
                "whole networks; give parallel.engine=ddp"
            )


def _parts(config: RunConfig, record: Path | None, *, passes: tuple[str | None, str | None]) -> dict[str, Part]:
    """The computation's times, measured or given."""
    from fastgan.simulate import parts_from_passes, parts_from_record
    from fastgan.simulate.quantities import pass_seconds

    generator, discriminator = passes
    if record is not None and generator is None and discriminator is None:
        dtype = None if config.precision == "auto" else config.precision
        return parts_from_record(record, preset=config.name, dtype=dtype)
    if record is None and generator is not None and discriminator is not None:
        return parts_from_passes(
            pass_seconds(generator, option="--generator"),
            pass_seconds(discriminator, option="--discriminator"),
            tuple(penalty.kind for penalty in config.penalties),
        )
    raise ConfigError(
        "how long the networks compute must be measured or given: --record FILE of fastgan bench step, or both "
        "--generator and --discriminator, e.g. 13ms+0.4ms for a forward pass and for each of its images"
    )


def _say_report(policy: Policy, found: Simulated, cost: CostModel) -> None:
    from fastgan.simulate import efficiency

    seconds = found.step_seconds[1:-1]
    idle = ", ".join(f"{name} {share:.1%}" for name, share in found.idle_share.items())
    rows = {
        "step": f"{1e3 * seconds.mean():,.3f} ms, {1e3 * seconds.min():,.3f} to {1e3 * seconds.max():,.3f}",
        "images/s": f"{found.images_per_second:,.1f}",
        "efficiency": f"{efficiency(policy, found, cost):.1%} of one rank that alternates alone, in images per rank",
        "idle": f"{idle} of the time of these ranks",
        "staleness": f"{found.mean_staleness:.2f} versions on average, {found.max_staleness} at most",
    }
    say(str(policy))
    for name, text in rows.items():
        say(f"{name:<10}  {text}")


def _write(policy: Policy, found: Simulated, *, trace: Path | None, plot: Path | None) -> None:
    if trace is not None:
        from fastgan.simulate import chrome_trace
        from fastgan.train.files import replace_file

        replace_file(trace, chrome_trace(found.spans, found.segments))
        say(f"trace: {trace}")
    if plot is not None:
        save_timeline(plot, found.spans, found.segments, title=str(policy), unit="milliseconds", units_per_second=1e3)
