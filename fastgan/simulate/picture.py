"""A timeline of a schedule: a row for each segment of ranks, computation above, communication below."""

import io
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fastgan.schedule import Collective, Compute, Span

# By network the hue, by what is done the shade.
COLOURS = {
    "discriminator": {"generate": "#a1c3e6", "judge_real": "#f2c4c6", "learn": "#c44e52", "apply": "#7a2c2f"},
    "generator": {"generate": "#a1c3e6", "judge_real": "#f2c4c6", "learn": "#4c72b0", "apply": "#26406b"},
}
COLLECTIVES = {"gradient": "#55a868", "vote": "#2f2f2f", "publish": "#dd8452"}
# All colours of a picture.
LEGEND = {
    "fakes are made": "#a1c3e6",
    "real images are judged": "#f2c4c6",
    "discriminator learns": "#c44e52",
    "discriminator steps": "#7a2c2f",
    "generator learns": "#4c72b0",
    "generator steps": "#26406b",
    "both learn": "#8172b3",
    "ranks vote": COLLECTIVES["vote"],
    "gradients are summed": COLLECTIVES["gradient"],
    "weights are published": COLLECTIVES["publish"],
}
LEGEND_COLUMNS = 5
# As wide as the axes.
TITLE_CHARACTERS = 140


def timeline(
    spans: Sequence[Span],
    segments: Sequence[range],
    *,
    title: str,
    unit: str,
    units_per_second: float,
    file_format: str,
) -> bytes:
    """A PNG or SVG picture of the spans.

    Args:
        unit: of the axis of time, and how many of them a second has.
        file_format: `png` or `svg`.
    """
    figure = Figure(figsize=(11, 1.8 + 0.7 * len(segments)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw(axes, spans, segments, scale=units_per_second)
    axes.set_title(textwrap.fill(title, TITLE_CHARACTERS), fontsize=9, loc="left", parse_math=False)
    axes.set_xlabel(unit, fontsize=8)
    used = {_colour(span) for span in spans}
    handles = [Patch(color=colour, label=label) for label, colour in LEGEND.items() if colour in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False, fontsize=7)
    content = io.BytesIO()
    figure.savefig(content, format=file_format)
    return content.getvalue()


def _draw(axes: Axes, spans: Sequence[Span], segments: Sequence[range], *, scale: float) -> None:
    rows = {segment.start: row for row, segment in enumerate(segments)}
    for span in spans:
        # Computation above the row's line, communication below it.
        above, height = (-0.1, 0.5) if isinstance(span.what, Compute) else (-0.35, 0.2)
        bars = [(span.begin * scale, (span.end - span.begin) * scale)]
        place = (rows[span.rank] + above, height)
        axes.broken_barh(bars, place, facecolors=_colour(span), edgecolor="white", linewidth=0.3)
    labels = [f"rank {s.start}" if len(s) == 1 else f"ranks {s.start} to {s.stop - 1}" for s in segments]
    axes.set_yticks(range(len(segments)), labels, fontsize=8)
    axes.set_ylim(-0.6, len(segments) - 0.4)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(span: Span) -> str:
    if isinstance(span.what, Collective):
        return COLLECTIVES[span.what.kind]
    if len(span.what.updates) == 2 and span.what.kind == "learn":
        return LEGEND["both learn"]
    return COLOURS[span.what.updates[0].network][span.what.kind]
