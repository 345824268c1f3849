"""`fastgan train`: start a run, or go on with one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastgan.train.config import RunConfig


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PRESET] [KEY=VALUE]...", help="A preset such as digits, then changes to its keys."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML configuration, alone or on a preset.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Folder of a run to continue.")] = None,
) -> None:
    """Train a GAN, for example: fastgan train digits batch_images=128"""
    preset, overrides = split_arguments(arguments or [])
    chosen = _choose_config(preset, overrides, config_file=config, resume=resume)
    from fastgan.train.loop import train as train_run

    code = train_run(chosen, resume=resume)
    if code:
        raise typer.Exit(code)


def split_arguments(arguments: list[str]) -> tuple[str | None, list[str]]:
    """A leading word without `=` is the preset, the rest are overrides."""
    if arguments and "=" not in arguments[0]:
        return arguments[0], arguments[1:]
    return None, arguments


def _choose_config(
    preset: str | None, overrides: list[str], *, config_file: Path | None, resume: Path | None
) -> "RunConfig":
    from fastgan.train.config import load_config
    from fastgan.train.run_folder import resume_config

    if resume is None:
        return load_config(preset, config_file=config_file, overrides=overrides)
    names_another = preset is not None or config_file is not None
    asked = load_config(preset, config_file=config_file, overrides=overrides) if names_another else None
    return resume_config(resume, asked=asked, overrides=overrides)
