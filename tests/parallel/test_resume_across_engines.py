"""A state saved by one engine on n ranks goes on under another on m ranks, as if nothing had changed."""

from dataclasses import replace

import pytest

from fastgan.parallel import EngineChoice
from tests.parallel.ranks import Ranks
from tests.parallel.resume import go_on, save_after_training
from tests.parallel.toy import Case, alone, largest_difference, trained

ENGINES = {
    "flat": EngineChoice("flat"),
    "ddp": EngineChoice("ddp"),
    "fsdp2": EngineChoice("fsdp2"),
    **{f"deepspeed-{stage}": EngineChoice("deepspeed", stage) for stage in (0, 1, 2, 3)},
}


def case_on(engine: str) -> Case:
    choice = ENGINES[engine]
    # The generator alone is on stage 3, so that all cases train the same thing.
    judge = EngineChoice("deepspeed", 2) if choice.stage == 3 else choice
    return Case(discriminator=judge, generator=choice, optimizer="adam", num_steps=3)


@pytest.mark.parametrize("second", ENGINES)
@pytest.mark.parametrize("first", ["single", "fsdp2", "deepspeed-2", "deepspeed-3"])
def test_another_engine_goes_on(two_ranks: Ranks, first: str, second: str) -> None:
    expected, _ = trained(replace(alone(case_on("flat")), num_steps=6))
    if first == "single":
        saved = save_after_training(alone(case_on("flat")))
    else:
        saved = two_ranks.run(save_after_training, case_on(first))[0]
    for answer in two_ranks.run(go_on, case_on(second), saved):
        assert largest_difference(answer["weights"], expected) < 1e-6


@pytest.mark.parametrize("first", ["ddp", "fsdp2", "deepspeed-1", "deepspeed-3"])
def test_one_process_goes_on(two_ranks: Ranks, first: str) -> None:
    expected, _ = trained(replace(alone(case_on("flat")), num_steps=6))
    saved = two_ranks.run(save_after_training, case_on(first))[0]
    answer = go_on(alone(case_on("flat")), saved)
    assert largest_difference(answer["weights"], expected) < 1e-6
