"""Pictures of rows: times as bars with their spread, and the roofline."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

from benchmarks.rows import Ceilings, Figures, Row

_COLOURS = ("#8c8c8c", "#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3")
_BAR_INCHES = 0.22
# Names of providers left of a panel, what lies right of it and above the first, and a title between two of them.
_LEFT_INCHES, _RIGHT_INCHES, _GAP_INCHES, _LAST_INCHES = 2.6, 0.3, 0.5, 0.5
_WIDTH_INCHES = 9.0


def plot_bars(rows: Sequence[Row]) -> bytes:
    """PNG: one panel per case, one bar per provider, its whisker from p20 to p80; rows without a time are named."""
    cases = [(key, list(group)) for key, group in groupby(rows, key=case_title)]
    heights = [_BAR_INCHES * (len(group) + 0.4) for _, group in cases]
    total = sum(heights) + _GAP_INCHES * len(cases) + _LAST_INCHES
    figure = Figure(figsize=(_WIDTH_INCHES, total), dpi=110)
    FigureCanvasAgg(figure)
    bottom = total
    for (title, group), height in zip(cases, heights, strict=True):
        bottom -= _GAP_INCHES + height
        # Placed by hand: to find a layout takes matplotlib longer than to draw.
        width = _WIDTH_INCHES - _LEFT_INCHES - _RIGHT_INCHES
        place = (_LEFT_INCHES / _WIDTH_INCHES, bottom / total, width / _WIDTH_INCHES, height / total)
        axes = figure.add_axes(place)
        _draw_bars(axes, group)
        axes.set_title(title, fontsize=8, loc="left")
        axes.annotate("ms", (1, 0), (4, -10), xycoords="axes fraction", textcoords="offset points", fontsize=7)
    axes.set_xlabel("milliseconds per call, median with 20th and 80th percentile", fontsize=8)
    return _png(figure)


def case_title(row: Row) -> str:
    """What all providers of a case have in common."""
    return f"{row.benchmark}: {row.case}"


def _draw_bars(axes: Axes, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        colour = _COLOURS[place % len(_COLOURS)]
        if row.time is None:
            axes.text(0, place, f" {row.refused}"[:90], va="center", fontsize=6, color="0.4")
            continue
        whisker = np.array([[row.time.p50 - row.time.p20], [row.time.p80 - row.time.p50]])
        axes.barh(place, row.time.p50, height=0.7, color=colour, xerr=whisker, error_kw={"linewidth": 1, "capsize": 2})
    axes.set_yticks(range(len(rows)), [f"{row.provider} ({row.dtype})" for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def plot_roofline(figures: Figures) -> bytes | None:
    """PNG: FLOP/s over FLOPs per byte, below the ceilings of the same run; None where no row has both."""
    rows = [row for row in figures.rows if row.time and row.num_flops and row.num_bytes]
    if figures.ceilings is None or not rows:
        return None
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw_ceilings(axes, figures.ceilings, rows)
    providers = list(dict.fromkeys(row.provider for row in rows))
    for number, provider in enumerate(providers):
        mine = [row for row in rows if row.provider == provider]
        intensity = [row.num_flops / row.num_bytes for row in mine if row.num_flops and row.num_bytes]
        rate = [row.num_flops / row.time.p50 * 1e3 for row in mine if row.num_flops and row.time]
        axes.scatter(intensity, rate, s=18, color=_COLOURS[number % len(_COLOURS)], label=provider, zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="FLOPs per byte that must move", ylabel="FLOP/s")
    for axis in (axes.xaxis, axes.yaxis):
        # The usual ticks of a logarithm are formulas, whose fonts may be missing.
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False, fontsize=7)
    return _png(figure)


def _draw_ceilings(axes: Axes, ceilings: Ceilings, rows: Sequence[Row]) -> None:
    intensities = [row.num_flops / row.num_bytes for row in rows if row.num_flops and row.num_bytes]
    reach = np.geomspace(min(intensities) / 2, max(*intensities, 1.0) * 4, 100)
    products = {row.product or row.dtype for row in rows}
    for product in sorted(products & ceilings.matmul_flops_per_second.keys()):
        roof = np.minimum(reach * ceilings.copy_bytes_per_second, ceilings.matmul_flops_per_second[product])
        axes.plot(reach, roof, color="0.3", linewidth=1.2, label=f"measured ceilings, {product}")


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
