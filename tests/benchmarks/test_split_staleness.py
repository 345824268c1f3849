"""Runs of every staleness are configured as meant, and a run's checkpoints become a curve."""

from pathlib import Path

from PIL import Image

from benchmarks.digit_classifier import Digits, load_digits
from benchmarks.digits_quality import train_judge
from benchmarks.split_staleness import NUM_POINTS, SETUPS, draw, measure, overrides_of
from fastgan.schedule import Alternate, Split
from fastgan.train.build_schedule import build_schedule
from fastgan.train.config import load_config
from fastgan.train.log import quiet
from fastgan.train.loop import train

TINY = [f"{network}.{key}" for network in ("generator", "discriminator") for key in ("channels=2", "max_channels=4")]


def test_every_staleness_is_the_bound_of_its_policy_at_equal_images() -> None:
    for setup in SETUPS:
        config = load_config("digits", overrides=overrides_of(setup, 0, num_images=64_000))
        policy = build_schedule(config, num_ranks=setup.num_processes)
        assert isinstance(policy, Split if setup.staleness else Alternate)
        assert getattr(policy, "bound", 0) == setup.staleness
        assert (config.total_images, config.checkpoint.every_images) == (64_000, 64_000 // NUM_POINTS)
        assert (config.batch_images, config.objective.loss) == (8, "hinge")


def test_a_run_becomes_a_curve(tmp_path: Path) -> None:
    digits = load_digits()
    judge = train_judge(Digits(digits.images[::2], digits.labels[::2]), seed=0, num_epochs=1)
    overrides = [*overrides_of(SETUPS[0], 3, num_images=256), *TINY, f"run_dir={tmp_path / 'run'}"]
    with quiet(True):
        assert train(load_config("digits", overrides=overrides)) == 0
    curve = measure(tmp_path / "run", judge, setup=SETUPS[0], seed=3, num_scored=50)
    assert curve.images_seen == tuple(range(32, 257, 32))
    assert len(set(curve.frechet_distances)) == NUM_POINTS
    assert curve.measured_staleness == 0
    draw([curve._replace(setup=setup) for setup in SETUPS], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (960, 504)
