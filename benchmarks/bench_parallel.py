"""Training steps of the digits preset under each parallel engine: `python -m benchmarks.bench_parallel`.

Only the engines that one process can run: the others need processes that a launcher starts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.harness import Case, Provider
from benchmarks.runner import Options, main_of
from benchmarks.step_providers import fastgan_provider
from benchmarks.train_step import load_preset, step_case
from fastgan.train.config import RunConfig

ENGINES = ("single",)


def cases(options: Options) -> Iterator[Case]:
    """All engines on the same steps; the others are compared with the first, `single`."""
    config = load_preset("digits", options)
    providers = [_provider(engine, config, options) for engine in ENGINES]
    yield step_case(config, options.device, benchmark="parallel", providers=providers)


def _provider(engine: str, config: RunConfig, options: Options) -> Provider:
    chosen = config.model_copy(update={"parallel": config.parallel.model_copy(update={"engine": engine})})
    return fastgan_provider(f"engine {engine}", chosen, options.device, precision="fp32")


if __name__ == "__main__":
    sys.exit(main_of("parallel", cases, description=__doc__))
