"""What a run writes while it trains: lines on the terminal, stats.jsonl, TensorBoard."""

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastgan.errors import ConfigError, RunFolderError
from fastgan.train import log, progress
from fastgan.train.files import replace_file
from fastgan.train.progress import RunLog, format_duration, format_stats
from fastgan.train.stats import read_stats, rewind_stats


def make_clock(*, step_seconds: float) -> Callable[[], float]:
    """A clock that goes on by `step_seconds` every time it is read."""
    now = 0.0

    def read() -> float:
        nonlocal now
        now += step_seconds
        return now

    return read


def hide_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name))


def test_words_go_to_their_stream_unparsed_and_unwrapped(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[bold]data.path=[/tmp/x] :smile: " + "word " * 60 + "end"
    log.say(text)
    log.warn("3 images skipped")
    log.fail("batch_images=0")
    out, err = capsys.readouterr()
    assert out == text + "\n"
    assert err == "warning: 3 images skipped\nerror: batch_images=0\n"


def test_import_of_log_does_not_load_torch() -> None:
    code = "import sys, fastgan.train.log, fastgan.train.progress; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tick_writes_one_json_line_with_the_rate_since_the_last_tick(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_images=1000, tensorboard="off", clock=make_clock(step_seconds=2)) as run_log:
        run_log.tick(100, {"loss_discriminator": 0.5})
        run_log.tick(400, {"loss_discriminator": 0.25})
    lines = (tmp_path / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"images_seen": 100, "seconds": 2.0, "images_per_second": 50.0, "loss_discriminator": 0.5},
        {"images_seen": 400, "seconds": 4.0, "images_per_second": 150.0, "loss_discriminator": 0.25},
    ]


def test_a_tick_is_on_disk_before_the_log_is_closed(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_images=10, tensorboard="off") as run_log:
        run_log.tick(5, {})
        assert read_stats(tmp_path)[0]["images_seen"] == 5


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_images=10, tensorboard="off") as run_log:
        run_log.tick(5, {"a": math.nan, "b": -math.inf})
    tick = json.loads((tmp_path / "stats.jsonl").read_text(), parse_constant=pytest.fail)
    assert tick["a"] is None
    assert tick["b"] is None
    assert math.isnan(read_stats(tmp_path)[0]["a"])


def test_stats_may_not_replace_what_the_log_measures(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, total_images=10, tensorboard="off")
    with run_log, pytest.raises(ValueError, match="seconds"):
        run_log.tick(5, {"seconds": 1.0})


def test_resume_drops_ticks_beyond_the_checkpoint_and_goes_on_counting_seconds(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_images=1000, tensorboard="off", clock=make_clock(step_seconds=2)) as run_log:
        for images_seen in (100, 200, 300):
            run_log.tick(images_seen, {"loss_generator": 1.0})
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"images_seen": 40')
    clock = make_clock(step_seconds=1)
    with RunLog(tmp_path, total_images=1000, start_images=200, tensorboard="off", clock=clock) as run_log:
        run_log.tick(250, {"loss_generator": 2.0})
    ticks = read_stats(tmp_path)
    assert [tick["images_seen"] for tick in ticks] == [100, 200, 250]
    assert [tick["seconds"] for tick in ticks] == [2.0, 4.0, 5.0]
    assert ticks[-1]["images_per_second"] == 50.0
    assert [path.name for path in tmp_path.iterdir()] == ["stats.jsonl"]


def test_a_damaged_line_before_the_last_is_named_and_nothing_is_overwritten(tmp_path: Path) -> None:
    content = b'{"images_seen": 1}\n\x00\xff\n{"images_seen": 3}\n'
    (tmp_path / "stats.jsonl").write_bytes(content)
    with pytest.raises(RunFolderError, match="line 2"):
        rewind_stats(tmp_path, 1)
    assert (tmp_path / "stats.jsonl").read_bytes() == content


def test_plain_lines_when_stdout_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, total_images=250_000, tensorboard="off", clock=make_clock(step_seconds=8)) as run_log:
        run_log.advance(6_400)
        run_log.tick(12_800, {"loss_discriminator": 0.6123, "loss_generator": 0.92, "sign_statistic": 0.31})
    line = "images 12,800/250,000  1,600 images/s  2:28 left  loss_d 0.612 loss_g 0.92 sign_statistic 0.31\n"
    assert capsys.readouterr().out == line


def test_the_bar_shows_losses_and_lines_pass_above_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    original = sys.stdout
    with RunLog(tmp_path, total_images=1000, tensorboard="off") as run_log:
        run_log.tick(500, {"loss_discriminator": 0.5, "penalty_r1": 7.0})
        log.say("[saved] checkpoint")
        log.warn("slow disk")
    assert sys.stdout is original
    out, err = capsys.readouterr()
    assert "[saved] checkpoint" in out
    assert "warning: slow disk" in out
    assert err == ""
    assert "500/1,000 images" in out
    assert "loss_d 0.5" in out
    assert "penalty_r1" not in out


def test_an_error_inside_the_run_closes_the_log(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, total_images=10, tensorboard="off")

    def train() -> None:
        with run_log:
            run_log.tick(5, {})
            raise KeyError

    with pytest.raises(KeyError):
        train()
    with pytest.raises(ValueError, match="closed"):
        run_log.tick(6, {})
    run_log.close()
    assert len(read_stats(tmp_path)) == 1


def test_missing_tensorboard_is_told_once_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_tensorboard(monkeypatch)
    with RunLog(tmp_path, total_images=10, tensorboard="auto") as run_log:
        run_log.image(0, "samples", np.zeros((2, 2, 1), np.uint8))
    assert capsys.readouterr().out.count(progress.INSTALL_TENSORBOARD) == 1
    with pytest.raises(ConfigError, match=r"pip install 'fastgan\[tensorboard\]'"):
        RunLog(tmp_path, total_images=10, tensorboard="on")


def test_tensorboard_gets_scalars_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path, total_images=10, tensorboard="on") as run_log:
        run_log.tick(5, {"loss_generator": 0.75})
        run_log.image(5, "samples", np.full((4, 6, 3), 200, np.uint8))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss_generator")] == [(5, 0.75)]
    picture = events.Images("samples")[0]
    assert (picture.step, picture.height, picture.width) == (5, 4, 6)


def test_run_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="absent"):
        RunLog(tmp_path / "absent", total_images=10, tensorboard="off")
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunFolderError, match="taken"):
        replace_file(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (158.2, "2:38"), (3758, "1:02:38"), (86400 * 3 + 59.7, "3d 0:01:00"), (math.inf, "?")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_stats_are_short_and_losses_come_first() -> None:
    stats = {"loss_discriminator": 0.123456, "penalty_r1": 12345.0, "loss_generator": 2.0}
    assert format_stats(stats) == "loss_d 0.123 loss_g 2 penalty_r1 1.23e+04"
