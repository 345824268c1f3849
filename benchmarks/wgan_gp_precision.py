"""Does WGAN-GP train in bf16 as in float32? `python -m benchmarks.wgan_gp_precision [--images 48000] [--seeds 3]`.

Narrow networks on the built-in digits, a few seeds in both formats: the critic's estimate of the Wasserstein distance
while training, and the Fréchet distance of what the generator draws in the end. Curves of seeds differ in one format,
too, and that spread is the measure of a difference between the formats.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks.arguments import add_folders, picture_path, positive_int
from benchmarks.digit_classifier import load_digits
from benchmarks.digits_quality import Judge, score_images, train_judge
from benchmarks.record import write_record
from fastgan.errors import FastganError
from fastgan.train.config import RunConfig, load_config
from fastgan.train.files import replace_file
from fastgan.train.log import fail, quiet, say
from fastgan.train.loop import train
from fastgan.train.sample import generate, load_generator
from fastgan.train.stats import read_stats

PRECISIONS = ("fp32", "bf16")
PICTURE = Path(__file__).parent / "reports" / "wgan_gp_precision.png"
_NUM_SCORED = 2_500
_COLOURS = {"fp32": "#4c72b0", "bf16": "#dd8452"}


class Curve(NamedTuple):
    """One run: at each tick the images seen and the critic's estimate of the distance; the Fréchet distance at last."""

    precision: str
    seed: int
    images_seen: tuple[int, ...]
    wasserstein_estimates: tuple[float, ...]
    frechet_distance: float


def run_config(precision: str, seed: int, *, num_images: int, run_dir: Path) -> RunConfig:
    """digits-wgan-gp with networks that a CPU without bf16 instructions can train in minutes."""
    narrow = [
        f"{network}.{key}" for network in ("generator", "discriminator") for key in ("channels=8", "max_channels=32")
    ]
    overrides = [*narrow, f"precision={precision}", f"seed={seed}", f"total_images={num_images}", f"run_dir={run_dir}"]
    return load_config("digits-wgan-gp", overrides=[*overrides, f"log.every_images={max(1, num_images // 40)}"])


def measure(config: RunConfig, judge: Judge) -> Curve:
    """Trains the run and scores what it draws."""
    assert config.run_dir is not None
    run_dir = Path(config.run_dir)
    with quiet(True):
        train(config)
    ticks = read_stats(run_dir)
    images = generate(load_generator(run_dir).generator, num_images=_NUM_SCORED, seed=0)
    return Curve(
        config.precision,
        config.seed,
        tuple(int(tick["images_seen"]) for tick in ticks),
        # The critic minimises D(fake) - D(real).
        tuple(-tick["loss_discriminator"] for tick in ticks),
        score_images(judge, images, seed=0)["frechet_distance"],
    )


def draw(curves: Sequence[Curve], path: Path) -> None:
    """The curves as a PNG, one colour per format."""
    figure = Figure(figsize=(8, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for curve in curves:
        label = curve.precision if curve.seed == curves[0].seed else None
        colour = _COLOURS[curve.precision]
        axes.plot(curve.images_seen, curve.wasserstein_estimates, color=colour, label=label, linewidth=1.2)
    axes.set(
        xlabel="images seen", ylabel="critic's estimate of the distance", title="WGAN-GP on digits, by number format"
    )
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.getvalue())


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wgan_gp_precision", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--images", type=positive_int, default=48_000, help="real images that each run shows to the critic"
    )
    parser.add_argument("--seeds", type=positive_int, default=3, help="runs in each format")
    add_folders(parser)
    try:
        return compare(parser.parse_args())
    except FastganError as error:
        fail(str(error))
        return error.exit_code


def compare(options: argparse.Namespace) -> int:
    """Runs all seeds in both formats, then writes record and picture; the exit code."""
    picture = picture_path(options, PICTURE)
    judge = train_judge(load_digits(), seed=0)
    curves = []
    for seed in range(options.seeds):
        for precision in PRECISIONS:
            with tempfile.TemporaryDirectory() as folder:
                config = run_config(precision, seed, num_images=options.images, run_dir=Path(folder) / "run")
                curves.append(measure(config, judge))
            last = curves[-1]
            final = f"estimate {last.wasserstein_estimates[-1]:.3f}, Fréchet distance {last.frechet_distance:.2f}"
            say(f"{precision}, seed {seed}: {final}")
    draw(curves, picture)
    configuration = config.model_dump(mode="json", exclude={"run_dir", "precision", "seed"})
    figures = {"runs": [curve._asdict() for curve in curves]}
    record = write_record("wgan_gp_precision", figures, configuration=configuration, records_dir=options.out)
    say(f"record: {record}, picture: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
