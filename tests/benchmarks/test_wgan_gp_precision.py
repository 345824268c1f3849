"""Runs in both number formats give curves of the same clock, and a picture."""

from pathlib import Path

from PIL import Image

from benchmarks.digit_classifier import Digits, load_digits
from benchmarks.digits_quality import train_judge
from benchmarks.wgan_gp_precision import draw, measure, run_config


def test_two_formats_give_two_curves(tmp_path: Path) -> None:
    digits = load_digits()
    judge = train_judge(Digits(digits.images[::2], digits.labels[::2]), seed=0, num_epochs=1)
    configs = [run_config(name, 1, num_images=384, run_dir=tmp_path / name) for name in ("fp32", "bf16")]
    fp32, bf16 = (measure(config, judge) for config in configs)
    assert (fp32.precision, bf16.precision, fp32.seed, bf16.seed) == ("fp32", "bf16", 1, 1)
    assert fp32.images_seen == bf16.images_seen
    assert fp32.images_seen[-1] == 384
    assert len(fp32.wasserstein_estimates) == len(fp32.images_seen)
    # The same start and the same numbers, but for their rounding.
    assert fp32.wasserstein_estimates != bf16.wasserstein_estimates
    assert abs(fp32.wasserstein_estimates[0] - bf16.wasserstein_estimates[0]) < 0.05 * abs(
        fp32.wasserstein_estimates[0]
    )
    draw([fp32, bf16], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (960, 504)
