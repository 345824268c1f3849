"""Training steps against the usual ones under torch.compile: `python -m benchmarks.bench_compiled_step`.

Both networks are compiled. What stays eager is the pass of the discriminator over images whose penalty is due, since
AOTAutograd does not differentiate twice. To compile takes longer than to measure all other steps, so this benchmark is
not part of theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.harness import Case
from benchmarks.machine import computes_bf16
from benchmarks.op_cases import left_out
from benchmarks.runner import Options, main_of
from benchmarks.step_providers import COMPILED, fastgan_provider, usual_provider
from benchmarks.train_step import measured_config, step_case
from fastgan.train.config import RunConfig

PRESETS = ("dcgan-64", "digits")


def cases(options: Options) -> Iterator[Case]:
    """The presets by number format, the faster format first; only the small preset when quick."""
    for preset in PRESETS[-1:] if options.is_quick else PRESETS:
        config = measured_config(preset, options)
        for precision in COMPILED if computes_bf16(options.device) else ["fp32"]:
            yield compiled_case(config, options, precision=precision)


def compiled_case(config: RunConfig, options: Options, *, precision: str) -> Case:
    """The best usual step, the same compiled, and fastgan's."""
    providers = [
        usual_provider(name, config, options.device, variant=variant) for name, variant in COMPILED[precision].items()
    ]
    if options.is_quick:
        providers = [left_out(provider) if not provider.is_counted else provider for provider in providers]
    providers.append(fastgan_provider(f"fastgan {precision}", config, options.device, precision=precision))
    case = step_case(config, options.device, benchmark="compiled_step", providers=providers)
    return replace(case, dtype=precision)


if __name__ == "__main__":
    sys.exit(main_of("compiled_step", cases, description=__doc__))
