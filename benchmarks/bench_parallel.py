"""Training steps of the digits preset under each parallel engine: `python -m benchmarks.bench_parallel`.

The engines are those that a configuration may name. All of them run in one process here, which shows what an engine
costs when it has nothing to communicate.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import get_args

from benchmarks.harness import Case, Provider
from benchmarks.runner import Options, main_of
from benchmarks.step_providers import fastgan_provider
from benchmarks.train_step import load_preset, step_case
from fastgan.train.config import RunConfig
from fastgan.train.config_models import EngineKind

ENGINES = tuple(engine for engine in get_args(EngineKind) if engine != "auto")


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
