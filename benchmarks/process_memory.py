"""The most resident memory of a process of its own, which counts what no allocator of torch counts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STATUS = Path("/proc/self/status")


def own_peak_bytes(status: Path = STATUS) -> int:
    """VmHWM of this process since its start. `ru_maxrss` would count the parent's memory too, before exec.

    Raises:
        OSError: on a system without /proc.
        ValueError: if the line is missing.
    """
    match = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"{status} holds no line VmHWM")
    return int(match[1]) << 10


def peak_bytes_of(module: str, arguments: Sequence[str]) -> int:
    """What `python -m MODULE ARGUMENTS...` prints as its last line: its own peak.

    Raises:
        RuntimeError: if it fails, with its last line of complaint, or the signal that ended it.
    """
    words = [module, *arguments]
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        # The kernel kills what asks for more memory than there is.
        raise RuntimeError(f"{' '.join(words)} was ended by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(f"{' '.join(words)} failed: {lines[-1] if lines else 'no message'}")
    return int(done.stdout.strip().splitlines()[-1])
