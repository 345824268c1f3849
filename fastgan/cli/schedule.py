"""`fastgan schedule show`: who does what in the first steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan.cli.arguments import ConfigFile, Overrides, Preset, load_arguments
from fastgan.errors import ConfigError
from fastgan.train.log import say

if TYPE_CHECKING:
    from fastgan.schedule import Span

# A slip of the keyboard must not ask for more memory than there is.
MAX_RANKS = 2**20
MAX_STEPS = 100_000
Ranks = Annotated[int, typer.Option(help="Processes of the run.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a timeline into a .png or .svg file.")]


def show(
    preset: Preset = None,
    overrides: Overrides = None,
    config: ConfigFile = None,
    *,
    ranks: Ranks = 1,
    steps: Annotated[int, typer.Option(help="Steps to show.")] = 4,
    plot: Plot = None,
) -> None:
    """Show who does what, for example: fastgan schedule show digits --ranks 8 --steps 4"""
    from fastgan.schedule import schedule_table
    from fastgan.train.build_schedule import build_schedule

    if steps < 1:
        raise ConfigError(f"--steps {steps} must be at least 1; 4 show most of it")
    check_world(ranks, steps, plot)
    run_config = load_arguments(preset, overrides, config_file=config)
    policy = build_schedule(run_config, num_ranks=ranks)
    say(str(policy))
    for line in schedule_table(policy, num_steps=steps):
        say(line)
    if plot is not None:
        from fastgan.simulate import simulate, unit_model

        is_overlapped = run_config.parallel.overlap
        found = simulate(policy, unit_model(policy), num_steps=max(3, steps), overlapped=is_overlapped)
        shown = [span for span in found.spans if span.begin < found.step_seconds[:steps].sum()]
        unit = "forward passes of a rank's images; collectives are not to scale"
        save_timeline(plot, shown, found.segments, title=str(policy), unit=unit, units_per_second=1.0)


def check_world(ranks: int, steps: int, plot: Path | None) -> None:
    """Raises:
    ConfigError: if there is no rank, or more of them or of steps than memory holds, or the picture is to be neither a
        PNG nor an SVG.
    """
    if steps > MAX_STEPS:
        raise ConfigError(f"--steps {steps} must be at most {MAX_STEPS:,}; give fewer")
    if ranks < 1:
        raise ConfigError(f"--ranks {ranks} must be at least 1; 1 is a run without a launcher")
    if ranks > MAX_RANKS:
        raise ConfigError(f"--ranks {ranks} must be at most {MAX_RANKS:,}; give fewer")
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise ConfigError(
            f"--plot {plot} must end in .png or .svg; give {plot.with_suffix('.png') if plot.name else 'a.png'}"
        )


def save_timeline(
    path: Path, spans: Sequence[Span], segments: Sequence[range], *, title: str, unit: str, units_per_second: float
) -> None:
    """Draws what happened into the file and says so."""
    from fastgan.simulate.picture import timeline
    from fastgan.train.files import replace_file

    content = timeline(
        spans,
        segments,
        title=title,
        unit=unit,
        units_per_second=units_per_second,
        file_format=path.suffix.removeprefix("."),
    )
    replace_file(path, content)
    say(f"timeline: {path}")
