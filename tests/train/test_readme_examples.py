"""The README's Python examples run as they stand."""

import re
from collections.abc import Callable
from typing import Any

from fastgan.train.config import RunConfig
from fastgan.train.loop import train
from tests.guards.tree import ROOT

EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3


def run(*examples: str) -> dict[str, Any]:
    """What the examples define, one after the other."""
    names: dict[str, Any] = {"__name__": "__example__"}
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    return names


def test_a_trained_generator_makes_images(tiny: Callable[..., RunConfig]) -> None:
    train(tiny("total_images=16", "run_dir=runs/digits-000"))
    assert run(EXAMPLES[0])["images"].shape == (16, 1, 32, 32)


def test_a_loss_on_a_model_of_ones_own_has_gradients() -> None:
    assert run(EXAMPLES[1])["decoder"].to_image.weight.grad.abs().max() > 0


def test_a_planned_loop_starts_its_adversarial_part_when_it_says() -> None:
    names = run(*EXAMPLES[1:])
    state = names["state"]
    assert (state.images_seen, state.discriminator_updates, state.generator_updates) == (16, 2, 4)
    for network, num_updates in (("discriminator", 2), ("generator", 4)):
        (group,) = names["optimizers"][network].param_groups
        states = names["optimizers"][network].state
        assert {int(states[parameter]["step"]) for parameter in group["params"]} == {num_updates}
