"""Training steps under the policies that one process can run: `python -m benchmarks.bench_policies`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.harness import Case
from benchmarks.runner import Options, main_of
from benchmarks.step_providers import fastgan_provider
from benchmarks.train_step import PRESETS, measured_config, step_case

POLICIES = ("alternate", "joint")


def cases(options: Options) -> Iterator[Case]:
    """`joint` against `alternate`, with as many images and the same penalties."""
    for preset in PRESETS[:1] if options.is_quick else PRESETS:
        config = measured_config(preset, options)
        configs = {
            policy: config.model_copy(update={"schedule": config.schedule.model_copy(update={"policy": policy})})
            for policy in POLICIES
        }
        providers = [
            fastgan_provider(policy, chosen, options.device, precision="fp32") for policy, chosen in configs.items()
        ]
        yield step_case(config, options.device, benchmark="policies", providers=providers)


if __name__ == "__main__":
    sys.exit(main_of("policies", cases, description=__doc__))
