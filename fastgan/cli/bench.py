"""`fastgan bench`: run the benchmarks of the checkout, or make a report of their records."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fastgan.errors import ConfigError, did_you_mean

TARGETS = ("kernels", "step", "data", "parallel", "all")
REPORT = "report"
DEVICES = ("cpu", "cuda")


def bench(
    target: Annotated[str, typer.Argument(metavar="|".join((*TARGETS, REPORT)), help="What to measure, or report.")],
    records: Annotated[
        list[Path] | None, typer.Argument(metavar="RECORD...", help="For report: records, or folders of them.")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Few samples of few small cases.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Begin no case after so many seconds.")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="RECORD", help="Mark what became slower since this record.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of records and report.")] = Path("runs/bench"),
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda", help="By default cuda where there is one.")] = None,
) -> None:
    """Measure speed and memory against the usual PyTorch way, for example: fastgan bench all --quick"""
    root = find_checkout(Path(__file__).resolve().parents[2])
    if target == REPORT:
        if quick or seconds is not None or compare is not None or device is not None:
            raise ConfigError("fastgan bench report measures nothing: give it records and --out only")
        command = report_command(records or [], out, root=root)
    else:
        check_measurement(target, records or [], seconds=seconds, device=device)
        options = ["--quick"] if quick else []
        options += [] if seconds is None else ["--seconds", str(seconds)]
        options += [] if compare is None else ["--compare", seen_from(root, compare)]
        options += [] if device is None else ["--device", device]
        command = ["benchmarks.suite", target, *options, "--out", seen_from(root, out)]
    # The profiler announces each of its sessions at the default level, and torch warns of memory older than them.
    environment = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"} | os.environ
    # This process becomes the one that measures, so that Ctrl-C and SIGTERM reach it and it can write its record.
    os.chdir(root)
    os.execve(sys.executable, [sys.executable, "-m", *command], environment)


def check_measurement(target: str, records: list[Path], *, seconds: float | None, device: str | None) -> None:
    """Raises ConfigError for what cannot be measured."""
    if target not in TARGETS:
        choices = (*TARGETS, REPORT)
        raise ConfigError(f"bench {target!r} must be one of {', '.join(choices)}{did_you_mean(target, choices)}")
    if seconds is not None and not 0 < seconds < math.inf:
        raise ConfigError(f"--seconds {seconds:g} must be a positive number; leave it out for no limit")
    if device not in {None, *DEVICES}:
        raise ConfigError(f"--device {device} must be one of {', '.join(DEVICES)}; leave it out to take what is there")
    if records:
        raise ConfigError(f"fastgan bench {target} takes no records; to compare with one: --compare {records[0]}")


def find_checkout(root: Path) -> Path:
    """`root` if it holds the benchmarks.

    Raises:
        ConfigError: if it does not: they are part of the repository and not of the installed package.
    """
    if not (root / "benchmarks" / "suite.py").is_file():
        raise ConfigError(
            f"{root} holds no folder benchmarks: fastgan is installed as a package, which leaves them out; "
            "clone its repository, and there: pip install -c constraints.txt -e ."
        )
    return root


def report_command(records: list[Path], out: Path, *, root: Path) -> list[str]:
    """Module and arguments; without records, those in `out`.

    Raises:
        ConfigError: if there are none.
    """
    found = records or [out]
    for path in found:
        if not path.exists():
            raise ConfigError(f"record {path} does not exist; make one with: fastgan bench all --out {out}")
    return ["benchmarks.report", *(seen_from(root, path) for path in found), "--out", seen_from(root, out / REPORT)]


def seen_from(root: Path, path: Path) -> str:
    """`path` for a process that runs in `root`; records keep it, so inside of `root` it is relative."""
    absolute = path.resolve()
    return str(absolute.relative_to(root) if absolute.is_relative_to(root) else absolute)
