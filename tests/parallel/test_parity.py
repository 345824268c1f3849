"""Every engine on two ranks trains what one process trains on both ranks' batches."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fastgan.parallel import EngineChoice
from tests.parallel.planted import compressed
from tests.parallel.ranks import Ranks
from tests.parallel.toy import Case, alone, inputs_seen, largest_difference, trained

TOLERANCE = 1e-6
ENGINES = {
    "flat": EngineChoice("flat"),
    "ddp": EngineChoice("ddp"),
    "deepspeed-0": EngineChoice("deepspeed", 0),
    "deepspeed-1": EngineChoice("deepspeed", 1),
    "deepspeed-2": EngineChoice("deepspeed", 2),
    "fsdp2": EngineChoice("fsdp2"),
}
OBJECTIVES = {
    "no penalty": Case(),
    "R1": Case(penalties=("r1",)),
    "R1 and R2": Case(penalties=("r1", "r2")),
    "WGAN-GP": Case(penalties=("wgan_gp",)),
    "path": Case(path_penalty=True),
}
MIXED = {
    "generator on ZeRO-3, discriminator on ZeRO-2": Case(
        generator=EngineChoice("deepspeed", 3), discriminator=EngineChoice("deepspeed", 2), penalties=("r1",)
    ),
    # Without spectral norm roundings grow quickly, with `flat` by the same digits: two steps.
    "both on ZeRO-3, first order": Case(
        generator=EngineChoice("deepspeed", 3),
        discriminator=EngineChoice("deepspeed", 3),
        spectral_norm=False,
        num_steps=2,
    ),
    **{
        f"both on {choice.kind}-{choice.stage}, R1 and R2, {mode}": Case(
            generator=choice, discriminator=choice, penalties=("r1", "r2"), mode=mode
        )
        for choice in (EngineChoice("deepspeed", 3), EngineChoice("fsdp2"))
        for mode in ("dual", "approximate")
    },
    **{
        f"both on {choice.kind}-{choice.stage}, WGAN-GP, dual, several micro-batches, real logits": Case(
            generator=choice,
            discriminator=choice,
            penalties=("wgan_gp",),
            mode="dual",
            micro_batch_images=2,
            loss="relativistic",
        )
        for choice in (EngineChoice("deepspeed", 3), EngineChoice("fsdp2"))
    },
    "generator on ddp, discriminator on fsdp2": Case(
        generator=EngineChoice("ddp"), discriminator=EngineChoice("fsdp2"), penalties=("r1",)
    ),
    "generator on fsdp2, discriminator on flat": Case(
        generator=EngineChoice("fsdp2"), discriminator=EngineChoice("flat"), penalties=("wgan_gp",)
    ),
    "new fakes and real logits in the generator's loss": Case(
        generator=EngineChoice("ddp"), discriminator=EngineChoice("ddp"), share_fakes=False, loss="relativistic"
    ),
    **{
        f"three discriminators on three engines, {combination}": Case(
            generator=EngineChoice("ddp"),
            discriminator=EngineChoice("flat"),
            members=(EngineChoice("fsdp2"), EngineChoice("deepspeed", 2)),
            combination=combination,
            loss="relativistic",
            micro_batch_images=3,
        )
        for combination in ("mean", "max", "random")
    },
}


@cache
def reference(case: Case) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:  # type: ignore[type-arg]
    return trained(case)


def check(ranks: Ranks, case: Case) -> None:
    weights, records = reference(alone(case))
    for found, found_records in ranks.run(trained, case):
        assert largest_difference(found, weights) < TOLERANCE
        for ours, theirs in zip(found_records, records, strict=True):
            assert ours == pytest.approx(theirs, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_equals_one_process(two_ranks: Ranks, engine: str, objective: str, optimizer: str) -> None:
    choice = ENGINES[engine]
    case = replace(OBJECTIVES[objective], discriminator=choice, generator=choice, optimizer=optimizer)
    # Whole shares, for which the generator's forward pass may serve both updates, and three micro-batches.
    check(two_ranks, case)
    check(two_ranks, replace(case, micro_batch_images=2))


@pytest.mark.parametrize("name", MIXED)
def test_networks_on_different_engines(two_ranks: Ranks, name: str) -> None:
    check(two_ranks, MIXED[name])


def test_sample_i_is_the_same_on_any_number_of_ranks(two_ranks: Ranks) -> None:
    case = Case(discriminator=EngineChoice("flat"), generator=EngineChoice("flat"), micro_batch_images=2)
    shares = two_ranks.run(inputs_seen, case)
    for whole, *parts in zip(inputs_seen(alone(case)), *shares, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_losses_of_20_steps_do_not_depend_on_the_number_of_ranks(two_ranks: Ranks) -> None:
    choice = EngineChoice("ddp")
    check(two_ranks, Case(discriminator=choice, generator=choice, penalties=("r1",), optimizer="adam", num_steps=20))


@pytest.mark.parametrize("engine", ["flat", "ddp"])
def test_gradients_sent_in_bf16_are_rounded_and_no_more(two_ranks: Ranks, engine: str) -> None:
    choice = ENGINES[engine]
    case = Case(discriminator=choice, generator=choice, num_steps=1)
    weights, start = reference(alone(case))[0], trained(replace(alone(case), num_steps=0))[0]
    answers = [found for found, _ in two_ranks.run(compressed, case)]
    assert largest_difference(answers[0], answers[1]) == 0
    # bf16 keeps 8 bits: the weights move as without compression, to a hundredth of the way.
    assert 1e-7 < largest_difference(answers[0], weights) < 0.01 * largest_difference(start, weights)
