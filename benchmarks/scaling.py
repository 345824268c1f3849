"""A report of predicted scaling: `python -m benchmarks.scaling` renews tables and picture of reports/scaling.md.

Two networks as NVIDIA's StyleGAN2 at 256 and 1024 pixels, each as eager PyTorch runs it and without what launching
kernels costs, in worlds of 8 to 10,000 GPUs, under `alternate`, `joint` and `split`. Nothing is measured here: the
costs are those of published training speeds, and the rest follows from the scheduler's own plans.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.record import require_writable
from fastgan.errors import FastganError
from fastgan.schedule import Alternate, Joint, LazyPenalty, Policy, Split
from fastgan.simulate import CostModel, Fabric, Noise, Part, best_roles, efficiency, parts_from_passes, simulate
from fastgan.train.files import replace_file
from fastgan.train.log import fail, say

TABLE, BASELINES = "table", "baselines"
REPORTS_DIR = Path(__file__).parent / "reports"
FABRIC = Fabric(gpus_per_node=8, intra_bytes_per_second=200e9, inter_bytes_per_second=45e9)
NOISE = Noise(jitter=0.03)
RANKS = (8, 64, 1024, 10_000)
# 4 passes of the generator and 8 of the discriminator, see `parts_from_passes`.
NUM_PASSES = 12
NUM_STEPS = 33  # two intervals of R1


class Workload(NamedTuple):
    """Seconds of a step on one GPU: fixed, and for each image; images per GPU; bytes of each network's gradient."""

    name: str
    step: Part
    images_per_rank: int
    gradient_bytes: float

    def cost(self) -> CostModel:
        """As times of parts."""
        forward = self.step.scaled(1 / NUM_PASSES)
        sizes = {"discriminator": self.gradient_bytes, "generator": self.gradient_bytes}
        return CostModel(parts=parts_from_passes(forward, forward, ("r1",)), gradient_bytes=sizes, fabric=FABRIC)


# 104 ms + 6.0 ms per image: what NVIDIA's table of training speeds implies for 256 px on an A100. At 1024 px the same
# table has 14.57 s per 1,000 images on 8 GPUs with 4 images each, of which 104 ms again are fixed.
EAGER = 0.104
LEAN = 0.010
WORKLOADS = (
    Workload("256 px, eager, 8 images per GPU", Part(EAGER, 0.0060), 8, 4 * 25e6),
    Workload("256 px, lean, 8 images per GPU", Part(LEAN, 0.0060), 8, 4 * 25e6),
    Workload("256 px, lean, 2 images per GPU", Part(LEAN, 0.0060), 2, 4 * 25e6),
    Workload("1024 px, eager, 4 images per GPU", Part(EAGER, 0.0906), 4, 4 * 30e6),
    Workload("1024 px, lean, 4 images per GPU", Part(LEAN, 0.0906), 4, 4 * 30e6),
)


class Row(NamedTuple):
    """One simulation."""

    workload: Workload
    num_ranks: int
    policy: Policy
    milliseconds: float
    images_per_second: float
    efficiency: float
    idle: dict[str, float]
    max_staleness: int


def rows() -> Iterator[Row]:
    """All simulations, in the order of the report."""
    for workload in WORKLOADS:
        cost = workload.cost()
        for num_ranks in RANKS:
            for policy in _policies(workload, num_ranks, cost):
                found = simulate(policy, cost, num_steps=NUM_STEPS, noise=NOISE)
                yield Row(
                    workload,
                    num_ranks,
                    policy,
                    1e3 * float(found.step_seconds[1:-1].mean()),
                    found.images_per_second,
                    efficiency(policy, found, cost, num_steps=NUM_STEPS),
                    found.idle_share,
                    found.max_staleness,
                )


def _policies(workload: Workload, num_ranks: int, cost: CostModel) -> Iterator[Policy]:
    batch_images = workload.images_per_rank * num_ranks
    penalties = (LazyPenalty("r1", 1.0, 16),)
    yield Alternate(batch_images=batch_images, num_ranks=num_ranks, penalties=penalties)
    yield Joint(batch_images=batch_images, num_ranks=num_ranks, penalties=penalties)
    split = Split(batch_images=batch_images, num_ranks=num_ranks, penalties=penalties, discriminator_ranks=1)
    yield best_roles(split, cost)


def table(found: list[Row]) -> Iterator[str]:
    """Markdown."""
    yield "| network | GPUs | policy | ms per step | images/s | against alternate | efficiency | idle | staleness |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in found:
        base = next(r.images_per_second for r in found if r[:2] == row[:2] and isinstance(r.policy, Alternate))
        roles = f" ({row.policy.discriminator_ranks:,} for D)" if isinstance(row.policy, Split) else ""
        idle = ", ".join(f"{share:.0%}" for share in row.idle.values())
        gain = f"{row.images_per_second / base:.2f}x"
        numbers = f"{row.milliseconds:,.1f} | {row.images_per_second:,.0f} | {gain} | {row.efficiency:.0%}"
        name = f"{row.policy.name}{roles}"
        yield f"| {row.workload.name} | {row.num_ranks:,} | {name} | {numbers} | {idle} | {row.max_staleness} |"


def baselines() -> Iterator[str]:
    """Markdown: what `split` gains over `alternate` as it is here, and over what is made worse step by step."""
    variants = {
        "as in the table above": (True, True, True),
        "with new fakes for the generator": (False, True, True),
        "and without `parallel.overlap`": (False, False, True),
        "and gradients sent after the backward pass": (False, False, False),
    }
    chosen = ((WORKLOADS[1], 8), (WORKLOADS[1], 64), (WORKLOADS[2], 1024))
    yield "| alternate | " + " | ".join(f"{workload.name}, {num:,} GPUs" for workload, num in chosen) + " |"
    yield "|---" * (1 + len(chosen)) + "|"
    for name, (share_fakes, is_overlapped, hides_reduction) in variants.items():
        gains = []
        for workload, num_ranks in chosen:
            cost = replace(workload.cost(), hides_reduction=hides_reduction)
            *_, split = _policies(workload, num_ranks, cost)
            alternate = Alternate(
                batch_images=split.batch_images, num_ranks=num_ranks, penalties=split.penalties, share_fakes=share_fakes
            )
            options = {"num_steps": NUM_STEPS, "noise": NOISE, "overlapped": is_overlapped}
            ours, theirs = (simulate(policy, cost, **options).images_per_second for policy in (split, alternate))
            gains.append(f"{ours / theirs:.2f}x")
        yield f"| {name} | {' | '.join(gains)} |"


def picture(found: list[Row]) -> bytes:
    """PNG: images per second and GPU over the number of GPUs, a panel for each network."""
    figure = Figure(figsize=(12, 3.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(WORKLOADS))
    for axes, workload in zip(panels, WORKLOADS, strict=True):
        for name, colour in (("alternate", "#4c72b0"), ("joint", "#8172b3"), ("split", "#dd8452")):
            mine = [row for row in found if row.workload == workload and row.policy.name == name]
            rates = [row.images_per_second / row.num_ranks for row in mine]
            axes.plot([row.num_ranks for row in mine], rates, color=colour, marker="o", markersize=3, label=name)
        axes.set_xscale("log")
        # No powers of ten: they would need fonts for mathematics.
        axes.set_xticks(RANKS, [f"{num_ranks:,}" for num_ranks in RANKS])
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=0)
        axes.set_title(workload.name.replace(", ", "\n", 1), fontsize=8)
        axes.set_xlabel("GPUs", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("images per second and GPU", fontsize=8)
    panels[0].legend(frameon=False, fontsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--out", type=Path, default=REPORTS_DIR, help="folder of the report (%(default)s)")
    out = parser.parse_args().out
    try:
        require_writable(out)
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    found = list(rows())
    replace_file(out / "scaling.png", picture(found))
    text = (REPORTS_DIR / "scaling.md").read_text(encoding="utf-8")
    for name, lines in ((TABLE, table(found)), (BASELINES, baselines())):
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        text = "\n".join([text.partition(start)[0] + start, *lines, end + text.partition(end)[2]])
    replace_file(out / "scaling.md", text.encode())
    say(f"report: {out / 'scaling.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
