"""When an engine communicates, and what it keeps on each of two ranks."""

import gc
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import nn

from benchmarks.op_counts import count_ops
from benchmarks.parallel_worker import living_tensor_bytes
from fastgan.objectives import ObjectiveOutput
from fastgan.parallel import Engine, EngineChoice
from tests.parallel import toy
from tests.parallel.ranks import Ranks
from tests.parallel.toy import Case

NUM_MICRO_BATCHES = 3
# Several layers, because ZeRO-2 keeps whole the gradient of a parameter that lies in two shards; each of more than
# 100,000 weights, because ZeRO-3 shards none with fewer.
WIDTH, NUM_LAYERS = 320, 4
NUM_WEIGHTS = NUM_LAYERS * WIDTH * WIDTH
NUM_BYTES = 4 * NUM_WEIGHTS


class Loss(nn.Module):
    """Of some matrices of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(NUM_LAYERS)))

    def forward(self, inputs: torch.Tensor) -> ObjectiveOutput:
        return ObjectiveOutput(self.layers(inputs).square().mean(), {})


def micro_batch(engine: Engine, *, is_last: bool) -> None:
    output = engine(torch.ones(1, WIDTH), is_last=is_last)
    engine.backward(output.loss, weight=Fraction(1, 2 * NUM_MICRO_BATCHES), is_last=is_last)


def measured(choice: EngineChoice) -> tuple[list[bool], float, float, float]:
    """Whether each micro-batch of the third update communicates, and what this rank keeps, in multiples of all weights.

    Kept: between two updates; and what is added to that just before an optimizer step. Last, the most that one
    micro-batch allocates.
    """
    gc.collect()
    before = living_tensor_bytes()
    engine = toy.engine(choice, Loss(), case=Case(optimizer="adam"))
    # DDP sorts its buckets anew after the first.
    for _ in range(3):
        last = [index == NUM_MICRO_BATCHES - 1 for index in range(NUM_MICRO_BATCHES)]
        counts = [count_ops(partial(micro_batch, engine, is_last=is_last)) for is_last in last]
        engine.step()
    gc.collect()
    between = living_tensor_bytes()
    micro_batch(engine, is_last=True)
    engine.gradient_norm()
    gc.collect()
    within = living_tensor_bytes()
    engine.step()
    return (
        [count.num_collectives > 0 for count in counts],
        (between - before) / NUM_BYTES,
        (within - between) / NUM_BYTES,
        max(count.num_bytes_allocated for count in counts) / NUM_BYTES,
    )


# By engine: which micro-batches of an update communicate; then, in multiples of all weights, what is kept between two
# updates (the weights, Adam's two moments, and copies), and what gradients add to that.
EXPECTED = {
    EngineChoice("flat"): ([0, 0, 1], 3, 1),
    # Its buckets stay, and gradients are views of them.
    EngineChoice("ddp"): ([0, 0, 1], 4, 0),
    EngineChoice("deepspeed", 0): ([0, 0, 1], 3, 1),
    # Beside the weights a shard of a second copy. Gradients are whole until they have been reduced.
    EngineChoice("deepspeed", 1): ([0, 0, 1], 2.5, 0.5),
    # Nobody has room for a whole gradient: every micro-batch sends.
    EngineChoice("deepspeed", 2): ([1, 1, 1], 2.5, 0.5),
    # The weights travel, too. Two copies of their shards, one of the gradient's, and a buffer for a whole one.
    EngineChoice("deepspeed", 3): ([1, 1, 1], 3.5, 0),
    # The weights travel once and are whole from the first micro-batch to the gradient's norm.
    EngineChoice("fsdp2"): ([1, 0, 1], 1.5, 0.5),
}


@pytest.mark.parametrize("choice", EXPECTED, ids=lambda choice: f"{choice.kind}-{choice.stage}")
def test_who_sends_when_and_keeps_what(two_ranks: Ranks, choice: EngineChoice) -> None:
    communicates, kept, gradients = EXPECTED[choice]
    for found in two_ranks.run(measured, choice):
        assert found[0] == communicates
        assert found[1:3] == pytest.approx((kept, gradients), abs=0.05)
        # DeepSpeed's own buckets are 2 GB each, however small the network.
        assert found[3] < 4
