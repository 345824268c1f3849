"""`fastgan config`: what a configuration is before anything runs."""

import json

from fastgan.cli.arguments import ConfigFile, Overrides, Preset, load_arguments
from fastgan.train.log import say


def show(preset: Preset = None, overrides: Overrides = None, config: ConfigFile = None) -> None:
    """Print every key, its value and its meaning, as YAML."""
    from fastgan.train.config import dump_config

    say(dump_config(load_arguments(preset, overrides, config_file=config)).rstrip("\n"))


def check(preset: Preset = None, overrides: Overrides = None, config: ConfigFile = None) -> None:
    """Validate a configuration, listing every problem."""
    run_config = load_arguments(preset, overrides, config_file=config)
    say(f"{config or run_config.name}: valid")


def schema() -> None:
    """Print the JSON schema of configurations, for editors."""
    from fastgan.train.config import RunConfig

    say(json.dumps(RunConfig.model_json_schema(), indent=2))
