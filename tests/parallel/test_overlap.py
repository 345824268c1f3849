"""Gradients travel while other things are computed, and no bit of the result depends on it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastgan.parallel import EngineChoice
from tests.parallel.nan import train_with_nan
from tests.parallel.overlap import bytes_sent, in_plain_order, interrupted, order_of_events
from tests.parallel.ranks import Ranks
from tests.parallel.toy import Case, alone, largest_difference, trained

ENGINES = ["flat", "ddp"]
CASES = {
    "no penalty": Case(),
    "R1, micro-batches": Case(penalties=("r1",), micro_batch_images=2),
    "R1 and R2, new fakes": Case(penalties=("r1", "r2"), share_fakes=False),
    # Three steps: in five, roundings grow to 5e-5 between batches and micro-batches of one process, too.
    "WGAN-GP, three to two": Case(penalties=("wgan_gp",), discriminator_updates=3, generator_updates=2, num_steps=3),
    "relativistic, new fakes, micro-batches": Case(loss="relativistic", share_fakes=False, micro_batch_images=3),
    "three discriminators": Case(members=(EngineChoice("flat"),) * 2, combination="random", share_fakes=False),
}


def overlapping(case: Case, engine: str) -> Case:
    choice = EngineChoice(engine)
    members = tuple(choice for _ in case.members)
    return replace(case, generator=choice, discriminator=choice, members=members, optimizer="adam", overlap=True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("engine", ENGINES)
def test_overlap_changes_no_bit(two_ranks: Ranks, engine: str, name: str) -> None:
    case = overlapping(CASES[name], engine)
    plain, ours = two_ranks.run(in_plain_order, case), two_ranks.run(trained, case)
    for (weights, _), (expected, _) in zip(ours, plain, strict=True):
        assert largest_difference(weights, expected) == 0
    expected, _ = trained(replace(alone(case), overlap=False))
    assert largest_difference(ours[0][0], expected) < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pending_update_is_finished_before_the_state_is_read(two_ranks: Ranks, engine: str) -> None:
    case = overlapping(Case(penalties=("r1",), share_fakes=False), engine)
    whole = two_ranks.run(trained, replace(case, num_steps=6))
    for halves, (weights, _) in zip(two_ranks.run(interrupted, replace(case, num_steps=3)), whole, strict=True):
        assert largest_difference(halves, weights) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_each_reduction_is_behind_a_pass_of_the_other_network(two_ranks: Ranks, engine: str) -> None:
    case = overlapping(Case(share_fakes=False, num_steps=2), engine)
    for events in two_ranks.run(order_of_events, case):
        # The discriminator's gradients are awaited when the generator has made its images ...
        sent = events.index("send", events.index("discriminator: backward"))
        images = events.index("generator: images", sent)
        awaited = events.index("wait", sent)
        assert sent < images < events.index("end of generator: images", images) < awaited
        # ... and the generator's in the next step, within the discriminator's pass, before it gets its fakes.
        sent = events.index("send", events.index("generator: backward"))
        judging = events.index("discriminator: forward", sent)
        awaited = events.index("wait", sent)
        assert sent < judging < awaited < events.index("generator: images", sent)


@pytest.mark.parametrize("overlap", [True, False])
def test_flat_sends_buckets_while_the_backward_pass_runs(two_ranks: Ranks, overlap: bool) -> None:
    case = replace(overlapping(Case(num_steps=1, micro_batch_images=3), "flat"), overlap=overlap)
    for events in two_ranks.run(order_of_events, case):
        starts = [index for index, event in enumerate(events) if event == "discriminator: backward"]
        first, last = (events[start : events.index("end of discriminator: backward", start)] for start in starts)
        # Only the last micro-batch sends.
        assert "send" not in first
        assert last.count("send") > 1
        assert (last.index("send") < last.index("autograd is done")) == overlap


@pytest.mark.parametrize("engine", ENGINES)
def test_a_nan_is_skipped_by_all_ranks(two_ranks: Ranks, engine: str) -> None:
    answers = two_ranks.run(train_with_nan, replace(overlapping(Case(), engine), num_steps=4), False)
    assert [answer["skipped"][-1] for answer in answers] == [1, 1]
    for name, value in answers[0]["weights"].items():
        assert np.isfinite(value).all()
        np.testing.assert_array_equal(answers[1]["weights"][name], value)


@pytest.mark.parametrize("engine", ENGINES)
def test_compression_halves_the_bytes(two_ranks: Ranks, engine: str) -> None:
    assert two_ranks.run(bytes_sent, engine, None) == [2400, 2400]
    assert two_ranks.run(bytes_sent, engine, torch.bfloat16) == [1200, 1200]
