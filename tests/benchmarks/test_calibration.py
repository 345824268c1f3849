"""The simulator's calibration: costs are read out of measurements as they were put in, and ranks measure everything."""

import pytest

from benchmarks import calibrate_simulator, calibration_worker
from benchmarks.calibrate_simulator import Found, Link, link_of, predict, text_of
from benchmarks.calibration_worker import LARGE, LARGE_BYTES, SMALL, SMALL_BYTES, STEP, calls, measure
from fastgan.dist import ALONE
from fastgan.errors import TrainingError
from fastgan.simulate import Fabric
from fastgan.train.config import RunConfig, load_config

MILLISECONDS = {
    "generate": 2.0,
    "judge_real": 1.0,
    "update discriminator": 6.0,
    "update discriminator, r1": 10.0,
    "update generator": 9.0,
    "apply discriminator": 0.25,
    "apply generator": 0.5,
}


def config() -> RunConfig:
    small = [f"{network}.{key}=4" for network in ("generator", "discriminator") for key in ("channels", "max_channels")]
    return load_config("digits", overrides=["batch_images=8", *small])


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_the_link_is_the_one_that_made_the_times(num_ranks: int) -> None:
    fabric = Fabric(
        gpus_per_node=num_ranks,
        intra_bytes_per_second=2e8,
        inter_bytes_per_second=2e8,
        intra_latency_seconds=1e-4,
        algorithm="ring",
    )
    sizes = {SMALL: SMALL_BYTES, LARGE: LARGE_BYTES}
    seconds = {name: fabric.all_reduce_seconds(range(num_ranks), size) for name, size in sizes.items()}
    assert link_of(seconds, num_ranks=num_ranks) == pytest.approx(Link(1e-4, 2e8))
    assert link_of({}, num_ranks=1) is None


def test_a_step_is_the_sum_of_its_parts_and_messages() -> None:
    # The same at both sizes: a pass takes what it takes.
    seconds = {f"{name} @ {images}": 1e-3 * ms for name, ms in MILLISECONDS.items() for images in (2, 8)}
    # Fakes serve both networks, and one step in eight has R1.
    step = 6.0 + 2.0 + 0.25 + (9.0 - 2.0) + 0.5 + (10.0 - 6.0) / 8
    assert 1e3 * predict(config(), seconds, num_ranks=1) == pytest.approx(step)
    # Two gradients of next to nothing, each of two messages; votes travel while the networks are at work.
    slow = seconds | {SMALL: 2e-3, LARGE: 2e-3}
    assert 1e3 * predict(config(), slow, num_ranks=2) == pytest.approx(step + 2 * 2.0, rel=1e-3)


def test_a_rank_measures_the_step_and_every_part_at_two_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_worker, "_SAMPLE_SECONDS", 0.0)
    found = measure(calls(config(), ALONE), ALONE, num_rounds=2)
    sizes = {name.partition(" @ ")[2] for name in found} - {""}
    assert sizes == {"8", "2"}
    assert {name for name in found if " @ " not in name} == {STEP}
    assert all(len(samples) == 2 and min(samples) > 0 for samples in found.values())
    medians = {name: min(samples) for name, samples in found.items()}
    assert predict(config(), medians, num_ranks=1) > 0


def test_a_line_says_the_error_and_a_failing_rank_why(monkeypatch: pytest.MonkeyPatch) -> None:
    line = text_of(Found(2, 40.0, 44.0, Link(1e-4, 2e8)))
    assert line == "2 ranks: measured 40.0 ms, predicted 44.0 ms, error +10.0%; link 100 us, 200 MB/s"
    monkeypatch.setattr(calibrate_simulator, "_NUM_QUICK_ROUNDS", "none")
    with pytest.raises(TrainingError, match=r"a rank of 1 failed: .*invalid int value: 'none'"):
        calibrate_simulator.calibrate(1, is_quick=True)
