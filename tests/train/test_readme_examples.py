"""The README's Python examples run as they stand."""

import re
from collections.abc import Callable

import pytest

from fastgan.train.config import RunConfig
from fastgan.train.loop import train
from tests.guards.tree import ROOT

EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES, ids=["a trained generator", "a loss on a model of one's own"])
def test_an_example_runs(example: str, tiny: Callable[..., RunConfig]) -> None:
    train(tiny("total_images=16", "run_dir=runs/digits-000"))
    names: dict[str, object] = {"__name__": "__example__"}
    exec(compile(example, "README.md", "exec"), names)
    if "decoder" in names:
        assert names["decoder"].to_image.weight.grad.abs().max() > 0  # type: ignore[attr-defined]
