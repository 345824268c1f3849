"""`fastgan train`: start a run, or go on with one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan.cli.arguments import ConfigFile, Overrides, Preset, load_arguments, split_arguments

if TYPE_CHECKING:
    from fastgan.train.config import RunConfig

Resume = Annotated[Path | None, typer.Option(metavar="RUN", help="Folder of a run to continue.")]


def train(preset: Preset = None, overrides: Overrides = None, config: ConfigFile = None, resume: Resume = None) -> None:
    """Train a GAN, for example: fastgan train digits batch_images=128"""
    if resume is None:
        chosen = load_arguments(preset, overrides, config_file=config)
    else:
        chosen = _resumed(preset, overrides, config_file=config, run_dir=resume)
    from fastgan.train.loop import train as train_run

    code = train_run(chosen, resume=resume)
    if code:
        raise typer.Exit(code)


def _resumed(
    preset: str | None, overrides: list[str] | None, *, config_file: Path | None, run_dir: Path
) -> "RunConfig":
    """The configuration of the run in `run_dir`, with what may change changed."""
    from fastgan.train.run_folder import resume_config

    name, changes = split_arguments(preset, overrides)
    names_another = name is not None or config_file is not None
    asked = load_arguments(name, changes, config_file=config_file) if names_another else None
    return resume_config(run_dir, asked=asked, overrides=changes)
