"""Whole runs of `split`: checkpoints and resumes, statistics, signals, and what is refused at the start."""

import json
from pathlib import Path

import pytest

from fastgan.simulate.cost import PARTS
from fastgan.train.checkpoint import list_checkpoints
from fastgan.train.stats import read_stats
from tests.parallel import split_runs
from tests.parallel.ranks import Ranks
from tests.parallel.split_runs import Ended
from tests.train.test_resume import tensors

SPLIT = ("schedule.policy=split", "log.every_images=40", "checkpoint.every_images=1000", "generator.spectral_norm=true")
FRESH = "both roles go on from the newest ones"


def train(ranks: Ranks, run_dir: Path, *overrides: str, total_images: int, **options: object) -> list[Ended]:
    """A run that must end well."""
    settings = [*overrides, f"total_images={total_images}"]
    ended = ranks.run(split_runs.run, run_dir, settings, *options.values())
    assert [one.error for one in ended] == [""] * ranks.num_ranks
    return ended


def differing(one: Path, other: Path) -> set[str]:
    """Tensors of the newest checkpoints that are not equal to the last bit."""
    ours, theirs = tensors(one), tensors(other)
    assert len(ours) > 40
    return {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("schedule.publish_every=2", "schedule.delay_steps=3", "schedule.discriminator_updates=2"),
    ],
)
def test_a_resumed_run_in_lockstep_is_the_run_that_never_stopped(
    two_ranks: Ranks, workplace: Path, settings: tuple[str, ...]
) -> None:
    images = 8 * (2 if settings else 1)
    train(two_ranks, workplace / "straight", *SPLIT, *settings, total_images=24 * images)
    train(two_ranks, workplace / "parts", *SPLIT, *settings, total_images=11 * images)
    (ended, _) = train(two_ranks, workplace / "parts", total_images=24 * images)
    assert FRESH not in ended.said
    assert differing(workplace / "straight", workplace / "parts") == set()
    for name in ("samples.png", "losses.png"):
        assert (workplace / "parts" / name).is_file()
    assert (workplace / "straight/samples.png").read_bytes() == (workplace / "parts/samples.png").read_bytes()


def test_statistics_are_of_both_roles(two_ranks: Ranks, workplace: Path) -> None:
    train(two_ranks, workplace / "run", *SPLIT, "schedule.delay_steps=2", total_images=160)
    ticks = read_stats(workplace / "run")
    assert [tick["images_seen"] for tick in ticks] == [40, 80, 120, 160]
    assert all({"loss_discriminator", "loss_generator", "skipped_updates"} <= tick.keys() for tick in ticks)
    # Steps 0 to 4 read versions 0, 0, 0, 1 and 2.
    assert [(tick["staleness"], tick["staleness_max"]) for tick in ticks] == [(1.4, 2), (2, 2), (2, 2), (2, 2)]
    assert not (workplace / "run" / "reads.jsonl").exists()


def test_free_running_roles_record_what_they_read(two_ranks: Ranks, workplace: Path) -> None:
    free = ("schedule.lockstep=false", "schedule.max_staleness=4")
    run = workplace / "run"
    train(two_ranks, run, *SPLIT, *free, total_images=160)
    (ended, _) = train(two_ranks, run, "schedule.max_staleness=2", total_images=240)
    assert FRESH not in ended.said
    lines = [json.loads(line) for line in (run / "reads.jsonl").read_text().splitlines()]
    assert [line["first_step"] for line in lines] == list(range(0, 30, 5))
    for network in ("discriminator", "generator"):
        versions = [version for line in lines for version in line[network]]
        assert versions == sorted(versions)
        assert all(0 <= step - version <= (4 if step < 20 else 2) for step, version in enumerate(versions))
    assert all(tick["staleness_max"] <= 4 for tick in read_stats(run))


def test_a_run_goes_on_with_other_splits_and_policies(two_ranks: Ranks, three_ranks: Ranks, workplace: Path) -> None:
    run = workplace / "run"
    train(two_ranks, run, "log.every_images=40", "schedule.share_fakes=false", total_images=40)
    # The engine of the saved configuration is still auto.
    changed = ("schedule.policy=split", "schedule.share_fakes=true", "schedule.delay_steps=2")
    (ended, _) = train(two_ranks, run, *changed, total_images=80)
    assert ended.said.count(FRESH) == 1
    # The same publications: other sizes of roles and other delays find what they need.
    (ended, *_) = train(three_ranks, run, "schedule.discriminator_ranks=2", total_images=120)
    assert FRESH not in ended.said
    (ended, *_) = train(three_ranks, run, "schedule.discriminator_ranks=1", "schedule.delay_steps=1", total_images=160)
    assert FRESH not in ended.said
    (ended, *_) = train(three_ranks, run, "schedule.publish_every=3", total_images=200)
    assert ended.said.count(FRESH) == 1
    back = ("schedule.policy=alternate", "schedule.publish_every=1", "schedule.discriminator_ranks=auto")
    train(two_ranks, run, *back, total_images=240)
    assert [tick["images_seen"] for tick in read_stats(run)] == list(range(40, 241, 40))
    assert [path.name for path in list_checkpoints(run)][-1] == "000000240"


def test_a_signal_to_one_process_ends_the_run_with_a_checkpoint(two_ranks: Ranks, workplace: Path) -> None:
    run = workplace / "run"
    ended = two_ranks.run(split_runs.run, run, [*SPLIT, "total_images=8000"], 2.0, 5)
    assert [one.code for one in ended] == [143, 143]
    # Noticed in step 5, known to all two steps later.
    assert [path.name for path in list_checkpoints(run)] == [f"{8 * (8 + 2 + 1):09d}"]


def test_what_is_predicted_is_said_and_too_little_is_refused_by_all(two_ranks: Ranks, workplace: Path) -> None:
    settings = [*SPLIT, "total_images=40"]
    refused = two_ranks.run(split_runs.run, workplace / "run", settings, 1.05)
    text = "ConfigError: schedule.policy=split is not worth its staleness here: predicted 1.05 times the images"
    assert all(one.error.startswith(text) and "set schedule.force=true" in one.error for one in refused)
    assert not (workplace / "run").exists()
    for name, gain in (("forced", 0.5), ("measured", None)):
        ended = train(two_ranks, workplace / name, *settings, "schedule.force=true", total_images=40, gain=gain)
        assert "times the images per second of alternate (" in ended[0].said


@pytest.mark.parametrize("batch_images", [2, 16])
def test_all_ranks_decide_from_the_figures_of_one(two_ranks: Ranks, batch_images: int) -> None:
    answers = two_ranks.run(split_runs.measured, batch_images)
    assert answers[0] == answers[1]
    parts, gradient_bytes, all_reduce_seconds = answers[0]
    assert parts.keys() >= {*PARTS[:4], "apply discriminator", "apply generator", "penalty r1"}
    assert all(fixed > 0 or per_image > 0 for fixed, per_image in parts.values())
    assert min(gradient_bytes.values()) > 1000
    assert 0 < all_reduce_seconds < 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["parallel.engine=fsdp2"],
            "ConfigError: parallel.engine=fsdp2 of the discriminator with schedule.policy=split: this engine is not",
        ),
        (
            ["parallel.discriminator.engine=deepspeed"],
            "ConfigError: parallel.engine=deepspeed of the discriminator with schedule.policy=split: this engine",
        ),
        (
            ["schedule.discriminator_ranks=2"],
            "ConfigError: schedule.discriminator_ranks=2 must leave at least one of num_ranks=2 ranks to each of the 2",
        ),
        (
            ["schedule.publish_every=4", "schedule.max_staleness=3"],
            "ConfigError: schedule.max_staleness=3 must be at least delay_steps + publish_every - 1 = 4",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_all(two_ranks: Ranks, workplace: Path, settings: list[str], message: str) -> None:
    refused = two_ranks.run(split_runs.run, workplace / "run", [*SPLIT, *settings])
    assert all(one.error.startswith(message) for one in refused)
    assert not (workplace / "run").exists()
