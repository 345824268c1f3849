"""Training steps of a preset, fastgan's against the usual PyTorch way: `python -m benchmarks.train_step`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch

from benchmarks.baselines.usual_step import Variant
from benchmarks.harness import Case, Provider
from benchmarks.process_memory import own_peak_bytes, peak_bytes_of
from benchmarks.rows import Row
from benchmarks.runner import Options, add_options, read_options, run_benchmarks
from benchmarks.step_check import step_error, tolerance
from benchmarks.step_providers import NAMES, exact_steps, make_provider, steps_per_period
from fastgan.errors import FastganError
from fastgan.train.config import RunConfig, load_config
from fastgan.train.log import fail, say

PRESETS = ("digits", "digits-sn", "dcgan-64")
# What is measured beside presets, by a name of its own: the preset that it starts from, and what is changed.
VARIANTS = {"digits-sn": ("digits", ("name=digits-sn", "discriminator.spectral_norm=true"))}


def _narrow(channels: int, max_channels: int) -> list[str]:
    sizes = (f"channels={channels}", f"max_channels={max_channels}")
    return [f"{network}.{size}" for network in ("generator", "discriminator") for size in sizes]


# Enough to see that it works. In networks of half this width bf16 moves G's first changes by 0.15 to 1.1 of their norm.
_QUICK = ("batch_images=8", *_narrow(16, 32))
# A CPU would take a quarter of an hour for what a GPU does in seconds.
_ON_CPU = {"dcgan-64": ("batch_images=8", *_narrow(16, 128))}
# Long enough for the allocators to have settled, penalties included.
_NUM_PERIODS_FOR_MEMORY = 2


def cases(options: Options) -> Iterator[Case]:
    """The presets that the README shows; only the small one when quick."""
    for preset in PRESETS[:1] if options.is_quick else PRESETS:
        yield preset_case(measured_config(preset, options), options.device)


def measured_config(preset: str, options: Options) -> RunConfig:
    """The preset as this device can measure it."""
    overrides = _ON_CPU.get(preset, ()) if options.device.type == "cpu" else ()
    return load_preset(preset, is_quick=options.is_quick, overrides=overrides)


def load_preset(preset: str, *, is_quick: bool, overrides: Sequence[str] = ()) -> RunConfig:
    """The preset or variant with `overrides`; when quick, with small batches and short periods of lazy penalties."""
    base, changes = VARIANTS.get(preset, (preset, ()))
    config = load_config(base, overrides=[*changes, *(_QUICK if is_quick else ()), *overrides])
    if not is_quick:
        return config
    # A period then has a step with and one without them, and no more.
    often = tuple(penalty.model_copy(update={"every": min(penalty.every, 2)}) for penalty in config.penalties)
    return config.model_copy(update={"penalties": often})


def preset_case(config: RunConfig, device: torch.device) -> Case:
    """fastgan's step, and the usual one with one improvement after the other."""
    providers = [make_provider(name, config, device) for name in NAMES]
    return step_case(config, device, benchmark="train_step", providers=providers)


def step_case(config: RunConfig, device: torch.device, *, benchmark: str, providers: Sequence[Provider]) -> Case:
    """One period of training steps; the first steps must do to the networks what those of float64 do."""
    return Case(
        benchmark=benchmark,
        name=case_name(config),
        device=device,
        dtype="fp32",
        make_inputs=lambda seed: (),
        exact=lambda: exact_steps(config, device, variant=Variant()),
        providers=tuple(providers),
        counts_ops=True,
        num_items=steps_per_period(config) * config.batch_images,
        item="images",
        measure_error=step_error,
        tolerance=lambda dtype: tolerance(dtype, device),
    )


def case_name(config: RunConfig) -> str:
    """Preset, size of the networks and batch."""
    size = f"{config.data.resolution} px, {config.generator.channels} channels"
    return f"{config.name}, {size}, batch {config.batch_images}"


def with_process_memory(row: Row) -> Row:
    """The row with the peak of a process that runs this provider alone; as it is on a GPU, or without a time."""
    if row.benchmark != "train_step" or row.device != "cpu" or row.time is None:
        return row
    preset = row.case.split(",")[0]
    peak = peak_bytes_of("benchmarks.train_step", ["--preset", preset, "--memory-of", row.provider])
    return row.model_copy(update={"process_peak_bytes": peak})


def _run_alone(name: str, config: RunConfig, device: torch.device) -> int:
    run = make_provider(name, config, device).build()
    for _ in range(_NUM_PERIODS_FOR_MEMORY):
        run()
    return own_peak_bytes()


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--preset", action="append", help=f"may be given several times ({', '.join(PRESETS)})")
    parser.add_argument("--memory-of", choices=NAMES, help="print the peak memory of a process that runs only this")
    add_options(parser)
    arguments = parser.parse_args()
    try:
        options = read_options(arguments)
        configs = [measured_config(preset, options) for preset in arguments.preset or PRESETS]
        if arguments.memory_of:
            say(str(_run_alone(arguments.memory_of, configs[0], options.device)))
            return 0
        run_benchmarks(
            "train_step",
            {"train_step": lambda options: (preset_case(config, options.device) for config in configs)},
            options,
            module="train_step",
            finish=(lambda row: row) if options.is_quick else with_process_memory,
        )
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
