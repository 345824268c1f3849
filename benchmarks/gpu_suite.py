"""Tests and measures on a new GPU machine within a time budget; `launch/gpu_suite.sh` starts it.

Standard library only: it must say what is missing where something is. Each part is a process of its own, so that a
kernel that spoils its CUDA context spoils one part. The summary is rewritten after each part.
"""

from __future__ import annotations

import argparse
import json
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

MUST_END = {"install", "tests", "sanitizer"}
# What a part says in a line of its own beginning with this stands in the summary.
NOTE = "note: "
_LEAST_SECONDS = 5.0
# For a benchmark that has to end to write its record; within the budget.
_GRACE_SECONDS = 10.0


class Outcome(NamedTuple):
    """status: passed, FAILED, TIME OVER, nothing to do, or not begun. note: the last line of a failure, or why."""

    part: str
    status: str
    seconds: float = 0.0
    note: str = ""


def run_suite(parts: Sequence[Part], context: Context, *, minutes: float) -> list[Outcome]:
    """Runs the parts in order; each outcome stands in OUT/summary.md and .json before the next part begins."""
    began = time.monotonic()
    outcomes: list[Outcome] = []
    for part in parts:
        share = part.minutes / USUAL_MINUTES
        left = minutes * 60 - _GRACE_SECONDS - (time.monotonic() - began)
        seconds = min(share * minutes * 60, left)
        if left < _LEAST_SECONDS:
            outcomes.append(Outcome(part.name, "not begun", note=f"{minutes:g} minutes are over"))
        else:
            sys.stdout.write(f"== {part.name}, up to {seconds:.0f} s\n")
            outcomes.append(run_part(part, context._replace(seconds=seconds)))
        write_summary(outcomes, context, total_seconds=time.monotonic() - began)
    return outcomes


def run_part(part: Part, context: Context) -> Outcome:
    """All commands of the part, their output kept in OUT/PART.log."""
    began = time.monotonic()
    status, note = "passed", ""
    with (context.out / f"{part.name}.log").open("wb") as log:
        try:
            for command in part.commands(context):
                left = context.seconds - (time.monotonic() - began)
                code = run_command(command, log.fileno(), seconds=left, site=context.out / SITE)
                if code is None:
                    status = "TIME OVER"
                    break
                if code and status != "FAILED":
                    # Later commands of the part may write more, but this is why.
                    status, note = "FAILED", _last_line(context.out / f"{part.name}.log")
        except NothingToDoError as reason:
            status, note = "nothing to do", str(reason)
    if status == "TIME OVER":
        note = _last_line(context.out / f"{part.name}.log")
    elif status == "passed":
        note = _last_line(context.out / f"{part.name}.log", beginning=NOTE).removeprefix(NOTE)
    return Outcome(part.name, status, round(time.monotonic() - began, 1), note)


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
    """Ends the process's whole session, kindly first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue


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
    """Command line; the exit code is 1 if a part failed, or the tests did not come to their end."""
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
    if not arguments.minutes > 0:
        parser.error(f"--minutes {arguments.minutes:g} must be greater than 0")
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
    failed = any(outcome.status == "FAILED" for outcome in outcomes)
    cut_short = any(outcome.status in {"TIME OVER", "not begun"} and outcome.part in MUST_END for outcome in outcomes)
    return 1 if failed or cut_short else 0


if __name__ == "__main__":
    sys.exit(main())
