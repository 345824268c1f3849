"""Tests and measures on a new GPU machine within a time budget; `launch/gpu_suite.sh` starts it.

Standard library only: it must say what is missing where something is. Each part is a process of its own, so that a
kernel that spoils its CUDA context spoils one part. The summary is rewritten after each part; a signal ends the part
that runs, which still writes its record, and then the suite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu_suite_parts import PARTS, ROOT, SITE, USUAL_MINUTES, Context, NothingToDoError, Part
from benchmarks.stop import StoppedError, stop_signals_raise

MUST_END = {"install", "tests", "sanitizer"}
# What a part says in a line of its own beginning with this stands in the summary.
NOTE = "note: "
_LEAST_SECONDS = 5.0
# For a benchmark that has to end to write its record; within the budget.
_GRACE_SECONDS = 10.0


class Outcome(NamedTuple):
    """status: passed, FAILED, TIME OVER, STOPPED, nothing to do, or not begun. note: a failure's last line, or why."""

    part: str
    status: str
    seconds: float = 0.0
    note: str = ""


def run_suite(parts: Sequence[Part], context: Context, *, minutes: float) -> list[Outcome]:
    """Runs the parts in order; each outcome stands in OUT/summary.md and .json before the next part begins."""
    began = time.monotonic()
    outcomes: list[Outcome] = []
    # A few parts have the whole budget among them; all of them together would want more of it than there is.
    stretch = minutes / min(USUAL_MINUTES, sum(part.minutes for part in parts))
    for part in parts:
        left = minutes * 60 - _GRACE_SECONDS - (time.monotonic() - began)
        seconds = min(part.minutes * stretch * 60, left)
        stopped = next((outcome.note for outcome in outcomes if outcome.status == "STOPPED"), None)
        if stopped is not None or left < _LEAST_SECONDS:
            outcomes.append(Outcome(part.name, "not begun", note=stopped or f"{minutes:g} minutes are over"))
        else:
            sys.stdout.write(f"== {part.name}, up to {seconds:.0f} s\n")
            outcomes.append(run_part(part, context._replace(seconds=seconds)))
        write_summary(outcomes, context, total_seconds=time.monotonic() - began)
    return outcomes


def run_part(part: Part, context: Context) -> Outcome:
    """All commands of the part, their output kept in OUT/PART.log."""
    began, path = time.monotonic(), context.out / f"{part.name}.log"
    try:
        with path.open("wb") as log, stop_signals_raise():
            status, note = _run_commands(part, context, log.fileno(), began=began)
    except NothingToDoError as reason:
        status, note = "nothing to do", str(reason)
    except StoppedError as name:
        status, note = "STOPPED", f"stopped by {name}"
    return Outcome(part.name, status, round(time.monotonic() - began, 1), note)


def _run_commands(part: Part, context: Context, log: int, *, began: float) -> tuple[str, str]:
    """Status and note of the part; a command that fails does not end it, but its complaint is the part's."""
    path, failure = context.out / f"{part.name}.log", None
    for command in part.commands(context):
        left = context.seconds - (time.monotonic() - began)
        code = run_command(command, log, seconds=left, site=context.out / SITE)
        if code is None:
            return ("TIME OVER", _last_line(path)) if failure is None else ("FAILED", failure)
        if code and failure is None:
            failure = _last_line(path)
    if failure is not None:
        return "FAILED", failure
    return "passed", _last_line(path, beginning=NOTE).removeprefix(NOTE)


def run_command(command: Sequence[str], log: int, *, seconds: float, site: Path) -> int | None:
    """The exit code, or None if it had to be ended, with all processes that it started.

    Args:
        log: descriptor that takes all output.
        site: folder whose modules are found first, see `benchmarks.gpu_install`.
    """
    os.write(log, f"$ {' '.join(command)}\n".encode())
    paths = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(timeout=max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process, kindly first, and then whatever is left of its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # Not for ever: what waits for a driver that hangs cannot even be killed.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE_SECONDS)


def _last_line(path: Path, *, beginning: str = "") -> str:
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line[:200] for line in reversed(lines) if line and line.startswith(beginning)), "")


def write_summary(outcomes: Sequence[Outcome], context: Context, *, total_seconds: float) -> None:
    """OUT/summary.md for people and OUT/summary.json for programs, replaced as a whole."""
    lines = ["# GPU suite", "", "A dry run on the CPU." if context.is_dry_run else "", ""]
    lines += ["| part | outcome | seconds | note |", "|---|---|---|---|"]
    lines += [f"| {o.part} | {o.status} | {o.seconds:.1f} | {o.note.replace('|', '/')} |" for o in outcomes]
    lines += [
        "",
        f"{total_seconds:.0f} seconds so far. Logs: PART.log; records: records/; tables: records/report/report.md.",
    ]
    facts = {"dry_run": context.is_dry_run, "seconds": total_seconds, "parts": [o._asdict() for o in outcomes]}
    texts = {"summary.md": "\n".join(lines) + "\n", "summary.json": json.dumps(facts, indent=2) + "\n"}
    for name, text in texts.items():
        new = context.out / f".{name}"
        new.write_text(text, encoding="utf-8")
        new.replace(context.out / name)


def choose_parts(only: str | None) -> list[Part]:
    """All parts, or those named in `only`, in the suite's order.

    Raises:
        ValueError: for an unknown name.
    """
    if only is None:
        return list(PARTS)
    names = {name.strip() for name in only.split(",") if name.strip()}
    known = [part.name for part in PARTS]
    if not names or names - set(known):
        raise ValueError(f"--only {only!r} must name some of {', '.join(known)}")
    return [part for part in PARTS if part.name in names]


def main() -> int:
    """Command line; the exit code is 1 if a part failed or was stopped, or the tests did not come to their end."""
    parser = argparse.ArgumentParser(prog="launch/gpu_suite.sh", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of results, made if it does not exist")
    parser.add_argument("--minutes", type=float, default=USUAL_MINUTES, help="time budget (%(default)s)")
    parser.add_argument("--only", metavar="PART,...", help=", ".join(part.name for part in PARTS))
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--relative-to", type=Path, default=Path(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        parts = choose_parts(arguments.only)
    except ValueError as error:
        parser.error(str(error))
    if not 0 < arguments.minutes < math.inf:
        parser.error(f"--minutes {arguments.minutes:g} must be a positive number")
    if not arguments.dry_run and not has_gpu():
        parser.error("this machine has no NVIDIA GPU; --dry-run tries the suite on a CPU")
    out = (arguments.relative_to / arguments.out).resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        parser.error(f"cannot write --out {out}: {error.strerror}; choose another folder")
    outcomes = run_suite(parts, Context(out, arguments.dry_run), minutes=arguments.minutes)
    sys.stdout.write((out / "summary.md").read_text(encoding="utf-8"))
    return exit_code(outcomes)


def has_gpu() -> bool:
    """Whether there is an NVIDIA driver, as far as can be seen without torch."""
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """A measurement may be cut short; what says that the machine computes rightly may not."""
    failed = any(outcome.status in {"FAILED", "STOPPED"} for outcome in outcomes)
    cut_short = any(outcome.status in {"TIME OVER", "not begun"} and outcome.part in MUST_END for outcome in outcomes)
    return 1 if failed or cut_short else 0


if __name__ == "__main__":
    sys.exit(main())
