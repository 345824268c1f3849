"""What stale weights cost: `python -m benchmarks.split_staleness [--images 64000] [--seeds 2]`.

The built-in digits on two gloo processes, by `alternate` and by `split` in lockstep with weights that are 1, 2, 4 and 8
steps old, and on three processes with weights one step old, all with the same batch and as many images. Recorded is the
Fréchet distance of what the averaged generator draws, at checkpoints along the way. Seeds differ under one policy, too,
and that spread is the measure of a difference.

All train with smaller and more steps than the preset's. A game whose players see each other late converges only below a
step size that falls as 1 / (2 staleness + 1), so learning rates as high as `alternate` bears them would measure just
that (LOG.md has what other settings gave).
"""

from __future__ import annotations

import argparse
import io
import subprocess
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
from benchmarks.text import last_error
from fastgan.errors import FastganError, TrainingError
from fastgan.schedule.policy import counted
from fastgan.train.build import build_networks
from fastgan.train.checkpoint import Checkpoint, list_checkpoints
from fastgan.train.config import load_config
from fastgan.train.files import replace_file
from fastgan.train.log import fail, say
from fastgan.train.run_folder import read_config
from fastgan.train.sample import generate
from fastgan.train.stats import read_stats

PICTURE = Path(__file__).parent / "reports" / "split_staleness.png"
NUM_POINTS = 8
_COLOURS = ("#4c4c4c", "#4c72b0", "#55a868", "#dd8452", "#c44e52", "#8172b3")


class Setup(NamedTuple):
    """staleness: steps by which weights lag behind; 0 is alternate."""

    num_processes: int
    staleness: int

    @property
    def label(self) -> str:
        """As the picture and the lines say it."""
        if not self.staleness:
            return "alternate"
        more = f", {self.num_processes} processes" if self.num_processes > 2 else ""
        return f"split, {counted(self.staleness, 'step')} old{more}"


SETUPS = (Setup(2, 0), Setup(2, 1), Setup(2, 2), Setup(2, 4), Setup(2, 8), Setup(3, 1))
# For every policy, beside the preset.
SETTINGS = (
    "batch_images=8",
    "objective.loss=hinge",
    "optimizer.generator.learning_rate=6e-4",
    "optimizer.discriminator.learning_rate=6e-4",
)


class Curve(NamedTuple):
    """One run: at each checkpoint the images seen and the Fréchet distance; what its ticks say of staleness."""

    setup: Setup
    seed: int
    images_seen: tuple[int, ...]
    frechet_distances: tuple[float, ...]
    measured_staleness: float


def overrides_of(setup: Setup, seed: int, *, num_images: int) -> list[str]:
    """What differs from the preset digits: the policy, what all policies need, and checkpoints that all stay."""
    every = max(1, num_images // NUM_POINTS)
    common = [*SETTINGS, f"seed={seed}", f"total_images={num_images}", f"checkpoint.every_images={every}"]
    common += [f"checkpoint.keep={NUM_POINTS + 2}", "log.tensorboard=off", "precision=fp32", "device=cpu"]
    if setup.staleness == 0:
        # New fakes for the generator's update, as the roles of split have.
        return [*common, "schedule.share_fakes=false"]
    roles = ["schedule.policy=split", f"schedule.discriminator_ranks={setup.num_processes - 1}"]
    return [*common, *roles, f"schedule.delay_steps={setup.staleness}", "schedule.force=true"]


def train(overrides: Sequence[str], run_dir: Path, *, num_processes: int) -> None:
    """One run in lockstep.

    Raises:
        TrainingError: if it fails, with the error that it named.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    command = [*launcher, "-m", "fastgan", "train", "digits", *overrides, f"run_dir={run_dir}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError(f"{' '.join(overrides)} failed: {last_error(done.stderr)}")


def measure(run_dir: Path, judge: Judge, *, setup: Setup, seed: int, num_scored: int) -> Curve:
    """Scores what the averaged generator draws at each checkpoint of a run."""
    config = read_config(run_dir)
    images_seen, distances = [], []
    for path in list_checkpoints(run_dir):
        checkpoint = Checkpoint(path)
        generator, _ = build_networks(config, num_classes=checkpoint.facts.num_classes)
        checkpoint.restore_network("generator_ema", generator)
        images = generate(generator.eval(), num_images=num_scored, seed=0)
        images_seen.append(checkpoint.schedule.images_seen)
        distances.append(score_images(judge, images, seed=0)["frechet_distance"])
    last = read_stats(run_dir)[-1]
    return Curve(setup, seed, tuple(images_seen), tuple(distances), last.get("staleness", 0.0))


def draw(curves: Sequence[Curve], path: Path) -> None:
    """The curves as a PNG, one colour per staleness."""
    figure = Figure(figsize=(8, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for curve in curves:
        label = curve.setup.label if curve.seed == curves[0].seed else None
        colour = _COLOURS[SETUPS.index(curve.setup)]
        axes.plot(curve.images_seen, curve.frechet_distances, "o-", color=colour, label=label, linewidth=1, ms=3)
    axes.set(xlabel="images seen", ylabel="Fréchet distance", title="Digits by the age of the weights read")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend(frameon=False, loc="lower left")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.getvalue())


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.split_staleness", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=positive_int, default=64_000, help="real images that each run shows")
    parser.add_argument("--seeds", type=positive_int, default=2, help="runs of each kind")
    parser.add_argument("--scored", type=positive_int, default=2_500, help="images drawn at each checkpoint")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all runs, such as a width")
    add_folders(parser)
    options = parser.parse_args()
    if options.scored < 2:
        parser.error(f"--scored {options.scored} must be at least 2: one image has no covariance")
    try:
        return compare(options)
    except FastganError as error:
        fail(str(error))
        return error.exit_code


def compare(options: argparse.Namespace) -> int:
    """Runs all setups under all seeds, then writes record and picture; the exit code."""
    picture = picture_path(options, PICTURE)
    # Keys that are not valid are found before an hour has passed.
    base = load_config("digits", overrides=[*SETTINGS, f"total_images={options.images}", *options.set])
    judge = train_judge(load_digits(), seed=0)
    curves = []
    for seed in range(options.seeds):
        for setup in SETUPS:
            overrides = [*overrides_of(setup, seed, num_images=options.images), *options.set]
            with tempfile.TemporaryDirectory() as folder:
                run_dir = Path(folder) / "run"
                train(overrides, run_dir, num_processes=setup.num_processes)
                curves.append(measure(run_dir, judge, setup=setup, seed=seed, num_scored=options.scored))
            say(f"{setup.label}, seed {seed}: Fréchet distance {curves[-1].frechet_distances[-1]:.2f}")
    draw(curves, picture)
    configuration = base.model_dump(mode="json", exclude={"run_dir", "seed", "schedule"})
    figures = {"runs": [curve._asdict() | {"setup": curve.setup._asdict()} for curve in curves]}
    record = write_record("split_staleness", figures, configuration=configuration, records_dir=options.out)
    say(f"record: {record}, picture: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
