"""`profile=true` leaves a trace that says what ran when."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastgan.errors import RunFolderError
from fastgan.train.config import RunConfig
from fastgan.train.loop import train
from fastgan.train.trace import num_steps_to_trace


def spans(path: Path) -> list[dict[str, Any]]:
    """What ran, in the order of its start; times in microseconds."""
    events = json.loads(path.read_text())["traceEvents"]
    return sorted((event for event in events if event.get("ph") == "X"), key=lambda event: event["ts"])


def named(events: list[dict[str, Any]], start: str) -> list[dict[str, Any]]:
    return [event for event in events if event["name"].startswith(start)]


def is_inside(event: dict[str, Any], span: dict[str, Any]) -> bool:
    begins: float = event["ts"] - span["ts"]
    return 0 <= begins <= begins + event["dur"] <= span["dur"]


def test_the_trace_shows_steps_and_their_parts(
    tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny("run_dir=run", "profile=true", "penalties.0.every=3")
    assert train(config) == 0
    assert "steps 5 to 7 recorded: run/trace-0.json" in capsys.readouterr().out
    events = spans(Path("run/trace-0.json"))
    steps = named(events, "step ")
    assert [step["name"] for step in steps] == ["step 5", "step 6", "step 7"]
    for step in steps:
        inside = [event for event in events if is_inside(event, step)]
        parts = [e["name"] for e in inside if e["name"].startswith(("generator: ", "discriminator: "))]
        assert parts == [
            "generator: images",
            "discriminator: forward",
            "discriminator: backward",
            "discriminator: optimizer step",
            "generator: forward",
            "generator: backward",
            "generator: optimizer step",
        ]
        convolutions = named(inside, "aten::convolution")
        assert any(is_inside(event, part) for event in convolutions for part in named(inside, "generator: forward"))


def test_the_lazy_penalty_is_among_the_steps(tiny: Callable[..., RunConfig]) -> None:
    assert num_steps_to_trace(tiny("penalties.0.every=8")) == 8
    assert num_steps_to_trace(tiny("penalties.0.every=8", "schedule.discriminator_updates=3")) == 3
    assert num_steps_to_trace(tiny("penalties.0.every=64")) == 16
    assert num_steps_to_trace(tiny("penalties=[]")) == 2


def test_a_run_that_ends_meanwhile_leaves_what_there_is(
    tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny("run_dir=run", "profile=true", "total_images=56"))
    assert [step["name"] for step in named(spans(Path("run/trace-0.json")), "step ")] == ["step 5", "step 6"]
    train(tiny("run_dir=short", "profile=true", "total_images=40"))
    assert "the run ended after 5 steps and the first 5 steps are not recorded" in capsys.readouterr().err
    assert not Path("short/trace-0.json").exists()


def test_a_trace_that_cannot_be_written_is_one_line(tiny: Callable[..., RunConfig]) -> None:
    Path("run").mkdir()
    config = tiny("run_dir=run", "profile=true")
    # A folder in its place: the file cannot be renamed onto it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastgan.train.loop.write_run_facts", lambda folder, *a, **k: (folder / "trace-0.json").mkdir())
        with pytest.raises(RunFolderError, match=r"cannot write run/trace-0\.json: Is a directory; free space, or"):
            train(config)
