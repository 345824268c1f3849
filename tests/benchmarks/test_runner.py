"""What a benchmark is told is checked before it measures, and a late Ctrl-C leaves one line."""

import argparse
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import bench_step_parts, suite
from benchmarks.record import RECORDS_DIR
from benchmarks.runner import Options, add_options, read_options, run_benchmarks
from fastgan.errors import ConfigError, DataError

QUICK = Options(torch.device("cpu"), is_quick=True)


def test_a_record_of_other_benchmarks_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = next(RECORDS_DIR.glob("*-train_step.json"))
    options = QUICK._replace(out=tmp_path, compare=path)
    with pytest.raises(DataError, match=r"holds train_step and nothing of data, parallel; measure the same$"):
        run_benchmarks("x", {"data": pytest.fail, "parallel": pytest.fail}, options, module="")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_seconds_must_be_a_time(seconds: str) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    arguments = parser.parse_args([f"--seconds={seconds}"])
    with pytest.raises(
        ConfigError, match=rf"^--seconds {seconds} must be a positive number; leave it out for no limit$"
    ):
        read_options(arguments)


def test_parts_of_a_step_are_not_compared_with_each_other() -> None:
    assert not next(bench_step_parts.cases(QUICK)).is_compared


def test_a_second_ctrl_c_says_where_the_records_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "run_benchmarks", interrupted)
    monkeypatch.setattr(sys, "argv", ["suite", "data", "--quick", "--device=cpu", f"--out={tmp_path}"])
    assert suite.main() == 130
    error = capsys.readouterr().err
    assert (
        error
        == f"error: stopped; records stay in {tmp_path}, and `fastgan bench report {tmp_path}` makes their report\n"
    )
