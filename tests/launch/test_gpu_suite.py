"""The GPU suite: order, budget, what a run cut short leaves, and a whole run on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_install, gpu_suite, gpu_suite_parts, suite
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
    shorten(monkeypatch)
    slow = part("slow", with_stubborn_child(tmp_path / "pid"), minutes=USUAL_MINUTES)
    began = time.monotonic()
    run_suite([slow], Context(tmp_path, is_dry_run=True), minutes=4 / 60)
    assert time.monotonic() - began < 45
    assert outcomes(tmp_path)["slow"][0] == "TIME OVER"
    assert has_ended(tmp_path / "pid")


def test_a_failure_is_not_hidden_by_the_end_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    bad = part("bad", "raise SystemExit('why')", "import time; time.sleep(60)", minutes=USUAL_MINUTES)
    run_suite([bad], Context(tmp_path, is_dry_run=True), minutes=2 / 60)
    assert outcomes(tmp_path) == {"bad": ("FAILED", "why")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_part_that_runs_and_the_summary_says_so(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import sys; from pathlib import Path; from benchmarks.gpu_suite import exit_code, run_suite; "
        "from benchmarks.gpu_suite_parts import Context, Part; "
        "part = lambda name, text: Part(name, 8.0, lambda context: [[sys.executable, '-c', text]]); "
        f"slow = part('slow', {with_stubborn_child(tmp_path / 'pid')!r}); "
        "parts = [part('done', 'pass'), slow, part('next', 'pass')]; "
        f"sys.exit(10 + exit_code(run_suite(parts, Context(Path({str(tmp_path)!r}), True), minutes=8)))"
    )
    suite_process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (tmp_path / "pid").exists():
        assert suite_process.poll() is None
        time.sleep(0.02)
    suite_process.send_signal(number)
    assert suite_process.wait(timeout=60) == 11
    why = f"stopped by {number.name}"
    assert outcomes(tmp_path) == {"done": ("passed", ""), "slow": ("STOPPED", why), "next": ("not begun", why)}
    assert has_ended(tmp_path / "pid")


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of seconds is enough."""
    monkeypatch.setattr(gpu_suite, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(gpu_suite, "_GRACE_SECONDS", 1.0)


def with_stubborn_child(pid: Path) -> str:
    """A program that ends when it is told to, with a child that does not, whose number it writes to `pid`."""
    return (
        "import os, subprocess; "
        "p = subprocess.Popen(['sh', '-c', 'trap \"\" TERM; echo ready; exec sleep 60'], stdout=subprocess.PIPE); "
        f"p.stdout.readline(); open({str(pid) + '.new'!r}, 'w').write(str(p.pid)); "
        f"os.replace({str(pid) + '.new'!r}, {str(pid)!r}); p.wait()"
    )


def has_ended(pid: Path) -> bool:
    """Whether the process whose number stands in `pid` has ended, or does so within ten seconds."""
    stat = Path(f"/proc/{pid.read_text()}/stat")
    for _ in range(100):
        try:
            if stat.read_text().split()[2] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


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

    parts = [remembering("short", 1.0), remembering("long", 2.0), remembering("longest", USUAL_MINUTES)]
    run_suite(parts, Context(tmp_path, is_dry_run=True), minutes=4)
    assert given["short"] == pytest.approx(60 * 4 / USUAL_MINUTES)
    assert given["long"] == pytest.approx(120 * 4 / USUAL_MINUTES)
    run_suite(parts[:2], Context(tmp_path, is_dry_run=True), minutes=4)
    assert given["short"] == pytest.approx(80)  # a third of all there is
    assert given["long"] == pytest.approx(160)


def test_what_a_part_notes_and_why_it_failed_stand_in_the_summary(tmp_path: Path) -> None:
    parts = [
        part("fine", "print('note: half of it'); print('more')"),
        part("bad", "raise SystemExit('why')", "print(1)"),
    ]
    run_suite(parts, Context(tmp_path, is_dry_run=True), minutes=1)
    assert outcomes(tmp_path) == {"fine": ("passed", "half of it"), "bad": ("FAILED", "why")}


@pytest.mark.parametrize(
    ("part", "status", "code"),
    [
        ("conv", "TIME OVER", 0),
        ("conv", "FAILED", 1),
        ("conv", "STOPPED", 1),
        ("tests", "TIME OVER", 1),
        ("install", "not begun", 1),
    ],
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
        (["--dry-run", "--minutes", "0", "--out", "x"], "--minutes 0 must be a positive number"),
        (["--dry-run", "--minutes", "inf", "--out", "x"], "--minutes inf must be a positive number"),
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
    assert all(command[-2:] == ["--device", "cuda"] for command in commands)
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


def test_what_pip_installs_says_whether_the_native_library_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_install, "RECORD", tmp_path / "record.txt")
    monkeypatch.setattr(gpu_install.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    assert gpu_install.install(tmp_path).startswith("note: pip has installed the checkout; csrc/ is not")
    (tmp_path / "record.txt").write_text("not built: no nvcc\n")
    assert gpu_install.install(tmp_path).endswith("csrc/ is not built: no nvcc")


@pytest.mark.parametrize(("sees", "code"), [(True, 0), (False, 1)])
def test_where_torch_sees_no_gpu_install_and_tests_fail(tmp_path: Path, sees: bool, code: int) -> None:
    stand_in = "class cuda:\n    is_available = staticmethod(lambda: {})\n__version__ = '9'\n"
    (tmp_path / "torch.py").write_text(stand_in.format(sees))
    context = Context(tmp_path, is_dry_run=False)
    for commands in (gpu_suite_parts.install(context), gpu_suite_parts.tests(context)):
        (check,) = (command for command in commands if "is_available" in command[-1])
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert done.stderr == ("" if sees else "torch 9 sees no GPU\n")


def test_a_missing_compute_sanitizer_is_told_and_one_beside_nvcc_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(tmp_path, is_dry_run=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(gpu_suite_parts.shutil, "which", lambda name, path: None)
        with pytest.raises(NothingToDoError, match="no compute-sanitizer in CUDA_HOME, PATH or /usr/local/cuda/bin"):
            gpu_suite_parts.sanitizer(context)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "compute-sanitizer").touch(mode=0o755)
    ((_, path, *_),) = gpu_suite_parts.sanitizer(context)
    assert path.startswith(f"PATH={tmp_path / 'bin'}:")


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
    records = read_records(tmp_path / "found" / "records")
    measured = {row.benchmark for record in records.values() for row in record.rows().rows}
    assert measured == suite.TARGETS["all"].keys()
    assert all(record.configuration["complete"] for record in records.values())
    page = (tmp_path / "found" / "records" / "report" / "report.md").read_text(encoding="utf-8")
    assert all(f"record `{path.name}`" in page and f"![{path.stem}.png]" in page for path in records)


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
