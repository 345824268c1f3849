"""The GPU suite: order, budget, what a run cut short leaves, and a whole run on a CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_install, gpu_suite, suite
from benchmarks.gpu_suite import Outcome, choose_parts, run_command, run_suite
from benchmarks.gpu_suite_parts import PARTS, USUAL_MINUTES, Context, NothingToDoError, Part, gpu_test_files, measure
from benchmarks.record import read_records
from tests.guards.tree import ROOT

SCRIPT = ROOT / "launch" / "gpu_suite.sh"


def part(name: str, *programs: str, minutes: float = 1.0) -> Part:
    return Part(name, minutes, lambda context: [[sys.executable, "-c", program] for program in programs])


def outcomes(out: Path) -> dict[str, tuple[str, str]]:
    facts = json.loads((out / "summary.json").read_text())
    return {outcome["part"]: (outcome["status"], outcome["note"]) for outcome in facts["parts"]}


def test_a_failure_ends_nothing_else(tmp_path: Path) -> None:
    parts = [part("bad", "raise SystemExit('why')", "print('later')"), part("good", "print('fine')")]
    run_suite(parts, Context(tmp_path, is_dry_run=True), minutes=1)
    assert outcomes(tmp_path) == {"bad": ("FAILED", "why"), "good": ("passed", "")}
    assert "fine" in (tmp_path / "good.log").read_text()
    assert "| bad | FAILED |" in (tmp_path / "summary.md").read_text()


def test_a_part_may_have_nothing_to_do(tmp_path: Path) -> None:
    def commands(context: Context) -> list[list[str]]:
        raise NothingToDoError("no kernel")

    run_suite([Part("a", 1, commands)], Context(tmp_path, is_dry_run=True), minutes=1)
    assert outcomes(tmp_path) == {"a": ("nothing to do", "no kernel")}


def test_each_part_leaves_a_summary_before_the_next_begins(tmp_path: Path) -> None:
    look = f"import pathlib; print(pathlib.Path({str(tmp_path)!r}, 'summary.md').read_text())"
    run_suite([part("first", "pass"), part("second", look)], Context(tmp_path, is_dry_run=True), minutes=1)
    assert "| first | passed |" in (tmp_path / "second.log").read_text()


def test_a_part_that_takes_too_long_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_suite, "_LEAST_SECONDS", 0.0)
    pid = tmp_path / "pid"
    child = (
        f"import subprocess, sys; p = subprocess.Popen(['sleep', '60']); open({str(pid)!r}, 'w').write(str(p.pid)); "
    )
    slow = part("slow", child + "p.wait()", minutes=USUAL_MINUTES)
    began = time.monotonic()
    run_suite([slow], Context(tmp_path, is_dry_run=True), minutes=16 / 60)
    assert time.monotonic() - began < 45
    assert outcomes(tmp_path)["slow"][0] == "TIME OVER"
    stat = Path(f"/proc/{pid.read_text()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_parts_beyond_the_budget_are_not_begun(tmp_path: Path) -> None:
    run_suite([part("late", "print(1)")], Context(tmp_path, is_dry_run=True), minutes=0.01)
    assert outcomes(tmp_path)["late"] == ("not begun", "0.01 minutes are over")


def test_parts_share_the_budget_by_their_minutes(tmp_path: Path) -> None:
    given: dict[str, float] = {}

    def remembering(name: str, minutes: float) -> Part:
        def commands(context: Context) -> list[list[str]]:
            given[name] = context.seconds
            return []

        return Part(name, minutes, commands)

    run_suite([remembering("short", 1.0), remembering("long", 2.0)], Context(tmp_path, is_dry_run=True), minutes=4)
    assert given["short"] == pytest.approx(60 * 4 / USUAL_MINUTES)
    assert given["long"] == pytest.approx(120 * 4 / USUAL_MINUTES)


def test_what_a_part_notes_and_why_it_failed_stand_in_the_summary(tmp_path: Path) -> None:
    parts = [
        part("fine", "print('note: half of it'); print('more')"),
        part("bad", "raise SystemExit('why')", "print(1)"),
    ]
    run_suite(parts, Context(tmp_path, is_dry_run=True), minutes=1)
    assert outcomes(tmp_path) == {"fine": ("passed", "half of it"), "bad": ("FAILED", "why")}


@pytest.mark.parametrize(
    ("part", "status", "code"),
    [("conv", "TIME OVER", 0), ("conv", "FAILED", 1), ("tests", "TIME OVER", 1), ("install", "not begun", 1)],
)
def test_tests_must_come_to_their_end(part: str, status: str, code: int) -> None:
    assert gpu_suite.exit_code([Outcome("step", "passed"), Outcome(part, status)]) == code


def test_no_gpu_and_no_folder_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_suite, "has_gpu", lambda: False)
    (tmp_path / "file").touch()
    for words, said in (
        (["--out", "x"], "this machine has no NVIDIA GPU; --dry-run tries the suite on a CPU"),
        (["--dry-run", "--out", str(tmp_path / "file")], "File exists; choose another folder"),
        (["--dry-run", "--minutes", "0", "--out", "x"], "--minutes 0 must be greater than 0"),
    ):
        monkeypatch.setattr(sys, "argv", ["gpu_suite", *words])
        with pytest.raises(SystemExit) as caught:
            gpu_suite.main()
        assert caught.value.code == 2
        assert capsys.readouterr().err.strip().endswith(said)


def test_parts_are_chosen_in_the_order_of_their_importance() -> None:
    assert [p.name for p in choose_parts("step, conv,tests")] == ["tests", "conv", "step"]
    assert choose_parts(None) == list(PARTS)
    for wrong in ("convolution", "", ","):
        with pytest.raises(ValueError, match="must name some of install, tests"):
            choose_parts(wrong)


def test_targets_of_a_part_share_its_time(tmp_path: Path) -> None:
    commands = measure("conv2d", "step")(Context(tmp_path, is_dry_run=False, seconds=100))
    assert [command[3] for command in commands] == ["conv2d", "step"]
    assert all(command[4:6] == ["--seconds", "35"] for command in commands)
    assert "--quick" not in commands[0]
    assert measure("conv2d")(Context(tmp_path, is_dry_run=True))[0][-3:] == ["--quick", "--device", "cpu"]


def test_only_files_with_tests_for_a_gpu_are_run(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "ops"
    folder.mkdir(parents=True)
    (folder / "test_a.py").write_text("@pytest.mark.gpu\ndef test(): ...\n")
    (folder / "test_b.py").write_text("import something_that_is_not_there\n'@pytest.mark.gpu'\n")
    assert gpu_test_files(tmp_path / "tests") == ["tests/ops/test_a.py"]


def test_what_pip_cannot_install_is_imported_from_the_checkout(tmp_path: Path) -> None:
    said = gpu_install.install(tmp_path, pip=["this_module_does_not_exist"])
    assert said.startswith("note: pip failed")
    # -S: no other installation is seen.
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import sitecustomize; "
        "import fastgan.kernels; print(*fastgan.kernels.__path__)"
    )
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(ROOT / "kernels")


def test_later_parts_find_the_stand_in_first(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "only_here.py").touch()
    with (tmp_path / "log").open("wb") as log:
        code = run_command([sys.executable, "-c", "import only_here"], log.fileno(), seconds=60, site=tmp_path / "site")
    assert code == 0


@pytest.mark.slow
def test_the_whole_suite_runs_from_any_folder_on_a_cpu(tmp_path: Path) -> None:
    command = [str(SCRIPT), "--dry-run", "--minutes", "60", "--out", "found"]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    # Triton's interpreter is for tests of kernels; nobody measures it.
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcomes(tmp_path / "found")
    assert list(found) == [part.name for part in PARTS]
    assert {status for status, _ in found.values()} <= {"passed", "nothing to do"}, found
    records = read_records(tmp_path / "found" / "records").values()
    measured = {row.benchmark for record in records for row in record.rows().rows}
    assert measured == suite.TARGETS["all"].keys()
    assert all(record.configuration["complete"] for record in records)
    assert (tmp_path / "found" / "records" / "report" / "report.md").is_file()


def test_a_wrong_part_is_refused_before_anything_runs(tmp_path: Path) -> None:
    command = [str(SCRIPT), "--only", "everything", "--out", "found"]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "must name some of install" in done.stderr
    assert not (tmp_path / "found").exists()


def test_shell_scripts_pass_shellcheck() -> None:
    files = [path for folder in ("launch", ".ci") for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    scripts = [str(path) for path in files if path.read_bytes().startswith((b"#!/usr/bin/env bash", b"#!/bin/bash"))]
    assert str(SCRIPT) in scripts
    assert str(ROOT / ".ci" / "run") in scripts
    tool = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(tool), *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
