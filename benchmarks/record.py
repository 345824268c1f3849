"""Records of measurements: dated JSON files under benchmarks/records/, written once and never edited."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgan.train.environment import environment

RECORDS_DIR = Path(__file__).parent / "records"


def write_record(
    benchmark: str,
    figures: Mapping[str, Any],
    *,
    configuration: Mapping[str, Any],
    arguments: Sequence[str] | None = None,
    records_dir: Path = RECORDS_DIR,
) -> Path:
    """Write YYYY-MM-DD-BENCHMARK.json; where there is one, YYYY-MM-DD-BENCHMARK-2.json and so on.

    Args:
        benchmark: module name within `benchmarks`.
        figures: what was measured, units in the names.
        configuration: what the figures hold for.
        arguments: of the command line; by default those of this process.
    """
    now = datetime.datetime.now(datetime.UTC)
    command = ["python", "-m", f"benchmarks.{benchmark}", *(sys.argv[1:] if arguments is None else arguments)]
    record = {
        "benchmark": benchmark,
        "date": now.isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "configuration": configuration,
        "figures": figures,
        "environment": environment(),
    }
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    records_dir.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        path = records_dir / f"{now:%Y-%m-%d}-{benchmark}{suffix}.json"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            number += 1
        else:
            return path
