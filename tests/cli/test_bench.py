"""`fastgan bench`: what reaches the benchmarks, and what is refused before anything is measured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.record import write_record
from benchmarks.rows import Figures, Row, Spread
from fastgan.cli import bench as module
from fastgan.cli.app import run
from fastgan.errors import ConfigError
from tests.guards.tree import ROOT


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Path]]:
    """What this process would become, and where."""
    seen: list[tuple[list[str], Path]] = []

    def record(program: str, command: list[str], environment: dict[str, str]) -> None:
        assert program == sys.executable
        assert environment.items() >= os.environ.items()
        seen.append((command[1:], Path.cwd()))

    monkeypatch.chdir(Path.cwd())  # so that it is restored
    monkeypatch.setattr(module.os, "execve", record)
    return seen


def test_the_options_are_handed_on(
    commands: list[tuple[list[str], Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["bench", "step", "--quick", "--seconds", "9", "--compare", "a.json", "--out", "b", "--device", "cpu"])
    ((command, folder),) = commands
    assert folder == ROOT
    assert command == [
        *("-m", "benchmarks.suite", "step", "--quick", "--seconds", "9.0"),
        *("--compare", str(tmp_path / "a.json"), "--device", "cpu", "--out", str(tmp_path / "b")),
    ]


def test_a_path_inside_the_checkout_is_kept_relative(
    commands: list[tuple[list[str], Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "tests")
    run(["bench", "all", "--out", "../benchmarks/records"])
    assert commands[0][0][-2:] == ["--out", "benchmarks/records"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kernel"], "did you mean 'kernels'"),
        (["step", "a.json"], "takes no records; to compare with one: --compare a.json"),
        (["step", "--device", "gpu"], "--device gpu must be one of cpu, cuda"),
        (["report", "--quick"], "report measures nothing"),
        (["report", "nothing-here.json"], "record nothing-here.json does not exist; make one with: fastgan bench all"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, commands: list[tuple[list[str], Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert commands == []


def test_an_installation_without_the_checkout_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no folder benchmarks: fastgan is installed as a package"):
        module.find_checkout(tmp_path)


def test_a_report_is_made_from_records(tmp_path: Path) -> None:
    time = Spread(p20=1.0, p50=2.0, p80=3.0, num_runs=4, num_calls=1)
    rows = (Row(benchmark="square", case="8x8", provider="eager", device="cpu", dtype="fp32", time=time),)
    figures = Figures(rows=rows).model_dump(mode="json", exclude_none=True)
    write_record("bench-all", figures, configuration={"quick": True}, arguments=["all"], records_dir=tmp_path)
    command = [sys.executable, "-m", "fastgan", "bench", "report", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "### square: 8x8" in text
    assert "**Quick**" in text
    assert list((tmp_path / "report").glob("*.png"))


def test_a_folder_with_something_else_in_it_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    command = [sys.executable, "-m", "fastgan", "bench", "step", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    reason = "is not a record: benchmark: Field required; give one that a benchmark wrote"
    assert done.stderr == f"error: {tmp_path / 'other.json'} {reason}\n"


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf"])
def test_a_time_that_is_none_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "step", "--seconds", seconds]) == 2
    assert (
        capsys.readouterr().err == f"error: --seconds {seconds} must be a positive number; leave it out for no limit\n"
    )
