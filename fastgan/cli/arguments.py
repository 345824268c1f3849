"""Arguments that several commands share: `[PRESET] [KEY=VALUE]... [--config FILE]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastgan.train.config import RunConfig

Preset = Annotated[str | None, typer.Argument(metavar="PRESET", help="See: fastgan presets.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Keys to change, e.g. batch_images=128."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A YAML file; 'preset: NAME' in it builds on a preset.")
]


def split_arguments(preset: str | None, overrides: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """Preset and overrides: the first word may be an override, too."""
    if preset is not None and "=" in preset:
        return None, [preset, *(overrides or ())]
    return preset, list(overrides or ())


def load_arguments(preset: str | None, overrides: Sequence[str] | None, *, config_file: Path | None) -> RunConfig:
    """The configuration that the arguments describe.

    Raises:
        ConfigError: see `load_config`.
    """
    from fastgan.train.config import load_config

    name, changes = split_arguments(preset, overrides)
    return load_config(name, config_file=config_file, overrides=changes)
