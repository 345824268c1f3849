"""A checkpoint written by one engine on n ranks goes on under another on m ranks, as if nothing had changed."""

from dataclasses import replace
from pathlib import Path

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
def test_another_engine_goes_on(two_ranks: Ranks, tmp_path: Path, first: str, second: str) -> None:
    expected, _ = trained(replace(alone(case_on("flat")), num_steps=6))
    if first == "single":
        save_after_training(alone(case_on("flat")), tmp_path)
    else:
        two_ranks.run(save_after_training, case_on(first), tmp_path)
    for weights in two_ranks.run(go_on, case_on(second), tmp_path):
        assert largest_difference(weights, expected) < 1e-6


@pytest.mark.parametrize("first", ["ddp", "fsdp2", "deepspeed-1", "deepspeed-3"])
def test_one_process_goes_on(two_ranks: Ranks, tmp_path: Path, first: str) -> None:
    expected, _ = trained(replace(alone(case_on("flat")), num_steps=6))
    saved = two_ranks.run(save_after_training, case_on(first), tmp_path)
    # Nothing is lost on the way: without a step, the weights are those that were saved.
    assert largest_difference(go_on(replace(alone(case_on("flat")), num_steps=0), tmp_path), saved[0]["weights"]) == 0
    assert largest_difference(go_on(alone(case_on("flat")), tmp_path), expected) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("fsdp2", "deepspeed-3"), ("deepspeed-2", "fsdp2")])
def test_four_ranks_go_on_where_two_were_and_two_where_four_were(
    two_ranks: Ranks, four_ranks: Ranks, tmp_path: Path, first: str, second: str
) -> None:
    expected, _ = trained(replace(alone(case_on("flat")), num_steps=6))
    for number, (before, after) in enumerate([(two_ranks, four_ranks), (four_ranks, two_ranks)]):
        before.run(save_after_training, case_on(first), tmp_path / str(number))
        for weights in after.run(go_on, case_on(second), tmp_path / str(number)):
            assert largest_difference(weights, expected) < 1e-6
