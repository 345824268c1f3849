"""`fastgan schedule show` and `fastgan simulate`: what they print, write and refuse."""

import json
from pathlib import Path

import pytest

from fastgan.cli.app import run

GIVEN = ["--generator", "13ms+0.4ms", "--discriminator", "12ms+0.4ms"]


def test_the_table_shows_every_update_of_every_step(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "timeline.svg"
    assert run(["schedule", "show", "digits", "--ranks", "8", "--steps", "4", "--plot", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("alternate: 1 discriminator update, then 1 generator update per step")
    assert lines[1].split()[:5] == ["step", "clock", "ranks", "makes", "reads"]
    assert lines[2].split()[:5] == ["0", "0", "0-7", "vote", "vote"]
    assert lines[3].split()[:5] == ["0-7", "discriminator", "1", "generator", "0"]
    assert "r1 x 8" in lines[3]
    # One of four steps has a vote, each has two updates, and the last line names the picture.
    assert len(lines) == 2 + 1 + 4 * 2 + 1
    assert picture.read_bytes().startswith(b"<?xml")


def test_a_simulation_reports_and_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace, picture = tmp_path / "trace.json", tmp_path / "timeline.png"
    world = ["--ranks", "16", "--gpus-per-node", "8", "--intra", "450GB/s", "--inter", "50GB/s", "--jitter", "0.1"]
    files = ["--trace", str(trace), "--plot", str(picture)]
    assert run(["simulate", "digits", "batch_images=128", *world, *GIVEN, *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["step", "images/s", "efficiency", "idle", "staleness"]
    assert json.loads(trace.read_bytes())["traceEvents"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_simulation_is_of_the_run_that_the_keys_describe(capsys: pytest.CaptureFixture[str]) -> None:
    """On a slow link: gradients sent after the backward pass, during it, behind the other network, and in half."""
    milliseconds = []
    for parallel in ("engine=flat", "engine=ddp", "overlap=true", "compression=bf16"):
        # So large that gradients are sent in several pieces.
        wide = [f"{name}.{key}=512" for name in ("generator", "discriminator") for key in ("channels", "max_channels")]
        keys = [*wide, "schedule.share_fakes=false"]
        assert run(["simulate", "digits", *keys, f"parallel.{parallel}", *GIVEN, "--intra", "1GB/s"]) == 0
        milliseconds.append(float(capsys.readouterr().out.splitlines()[1].split()[1].replace(",", "")))
    after, during, behind, half = milliseconds
    assert max(half, behind) < during < after


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["schedule", "show", "digits", "--ranks", "0"], "--ranks 0 must be at least 1"),
        (["schedule", "show", "digits", "--steps", "0"], "--steps 0 must be at least 1; 4 show most of it"),
        (["schedule", "show", "digits", "--steps", "1000000"], "--steps 1000000 must be at most 100,000; give fewer"),
        (["simulate", "digits", *GIVEN, "--steps", "1000000"], "--steps 1000000 must be at most 100,000; give fewer"),
        (["schedule", "show", "digits", "--ranks", "5"], "batch_images=32 must be a multiple of num_ranks = 5"),
        (["schedule", "show", "digits", "--plot", "a.pdf"], "--plot a.pdf must end in .png or .svg; give a.png"),
        (["schedule", "show", "digits", "--plot", ""], "--plot . must end in .png or .svg; give a.png"),
        (["schedule", "show", "digits", "--ranks", "9" * 20], "--ranks 99999999999999999999 must be at most 1,048,576"),
        (["simulate", "digits", *GIVEN, "--trace", "."], "cannot write '.': it is a folder; give the path of a file"),
        (["simulate", "digits"], "how long the networks compute must be measured or given: --record FILE"),
        (["simulate", "digits", *GIVEN[:2]], "how long the networks compute must be measured or given"),
        (["simulate", "digits", *GIVEN, "--inter", "fast"], "--inter=fast must be a number and one of"),
        (["simulate", "digits", *GIVEN, "--steps", "2"], "steps=2 must be at least 3"),
        (["simulate", "digits", *GIVEN, "--record", "none.json"], "how long the networks compute"),
        (["simulate", "digits", "--record", "none.json"], "--record none.json cannot be read"),
        (
            ["simulate", "digits", *GIVEN, "parallel.engine=fsdp2"],
            "parallel.engine=fsdp2 of the discriminator cannot be",
        ),
        (["simulate", "digits", *GIVEN, "parallel.engine=single"], "parallel.engine=single of the discriminator would"),
        (
            ["simulate", "digits", *GIVEN, "ensemble.members=[{name: two}]"],
            "ensemble.members=['two'] cannot be simulated",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
