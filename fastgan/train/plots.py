"""Pictures of how a run went, drawn from its stats.jsonl."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from fastgan.errors import RunFolderError
from fastgan.train.files import replace_file
from fastgan.train.stats import STATS_FILE, read_stats

LOSSES = (("loss_discriminator", "discriminator", "#c44e52"), ("loss_generator", "generator", "#4c72b0"))
SIGN_STATISTIC = (("sign_statistic", "sign statistic", "#55a868"),)
# From this many ticks on, the raw curve goes pale and a running mean is drawn over it.
SMOOTH_FROM_TICKS = 40

Ticks = list[dict[str, float]]
Series = tuple[tuple[str, str, str], ...]


def plot_losses(run_dir: Path) -> Path:
    """Draw RUN/losses.png: both losses, and the sign statistic where it was recorded, over images seen.

    Returns:
        The path of the picture.
    Raises:
        RunFolderError: no tick has been recorded, or the folder cannot be written.
    """
    ticks = read_stats(run_dir)
    if not ticks:
        raise RunFolderError(f"{run_dir / STATS_FILE} holds no tick; train for at least log.every_images images first")
    has_sign = any("sign_statistic" in tick for tick in ticks)
    figure = Figure(figsize=(8, 6.4 if has_sign else 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    heights = [2, 1] if has_sign else [1]
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    _draw(panels[0], ticks, LOSSES)
    panels[0].set(ylabel="loss")
    # A name may hold dollar signs, which would mean mathematics.
    panels[0].set_title(run_dir.resolve().name, parse_math=False)
    panels[0].legend(frameon=False)
    if has_sign:
        _draw(panels[1], ticks, SIGN_STATISTIC)
        panels[1].axhline(0, color="0.5", linewidth=0.8)
        panels[1].set(ylabel="sign statistic", ylim=(-1.05, 1.05))
    panels[-1].set_xlabel("images seen")
    panels[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    content = io.BytesIO()
    figure.savefig(content, format="png")
    path = run_dir / "losses.png"
    replace_file(path, content.getvalue())
    return path


def _draw(axes: Axes, ticks: Ticks, series: Series) -> None:
    """One curve per key; a tick without the key, or with NaN, leaves a gap."""
    images_seen = np.array([tick["images_seen"] for tick in ticks])
    for key, label, colour in series:
        values = np.array([tick.get(key, np.nan) for tick in ticks], dtype=np.float64)
        if len(ticks) < SMOOTH_FROM_TICKS:
            axes.plot(images_seen, values, color=colour, label=label, marker="o", markersize=3, linewidth=1.4)
        else:
            axes.plot(images_seen, values, color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(images_seen, running_mean(values, len(values) // 20), color=colour, label=label, linewidth=1.6)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the up to `window` values that end at each position, NaN left out. [N] -> [N], window at least 1."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    num_known = counts[ends] - counts[starts]
    return np.where(num_known > 0, (sums[ends] - sums[starts]) / np.maximum(num_known, 1), np.nan)
